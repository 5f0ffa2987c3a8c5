"""`ECGIndex`: an embedded archive, asked by sentences and by ECGs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datasets_scripts.records import read_record
from modeling_esi.evaluation.context import load_model
from modeling_esi.evaluation.embedding import embed_texts, evaluation_mode, unit_length

from .approximate import FaissSearch
from .building import identity_of
from .conditions import rows_where
from .index_folder import IndexRefused, faiss_file, open_embeddings, open_metadata, read_manifest
from .nearest import best_rows, nearest_rows


@dataclass(frozen=True)
class Hit:
    """A recording that was found.

    Attributes:
        record_id: the source's identifier.
        score: cosine of the angle between the two embeddings, from -1 to 1. It orders recordings; it is no probability.
        row: number of the recording in the index.
        metadata: age, sex, labels, and what else the index was built with; None where it is not known.
    """

    record_id: str
    score: float
    row: int
    metadata: dict[str, Any]


class ECGIndex:
    """An index in memory's reach: embeddings mapped, metadata read, the model loaded when it is first needed.

    Made by `ECGIndex.load`. Threads are torch's (`torch.set_num_threads`).

    Attributes:
        manifest: what the index says of itself.
        embeddings: `(N, P)` float16 or float32, rows of length 1, a memory map.
        metadata: the N rows of record_id, age, sex, labels (`pyarrow.Table`).
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        embeddings: np.ndarray,
        metadata: pa.Table,
        model: Any,
        device: str,
    ) -> None:
        self.manifest, self.embeddings, self.metadata = manifest, embeddings, metadata
        self._folder, self._model, self._device = folder, model, device

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        model: str | os.PathLike[str] | tuple[Any, Any] | None = None,
        device: str = "cpu",
        verify: bool = False,
    ) -> ECGIndex:
        """Open an index.

        Args:
            folder: what `build_index` wrote.
            model: with which queries are embedded: folder, Hub name, or a model and its processor; None: the one that
                the manifest names.
            device: where queries are embedded, if the model is loaded here.
            verify: also read all embeddings and hold them against their hash (a second for each GB).

        Raises:
            FileNotFoundError: where the folder is no finished index.
            IndexRefused: a ValueError, for an index that is not as it was written.
        """
        root, manifest = Path(folder), read_manifest(folder)
        metadata = open_metadata(root, manifest)
        return cls(root, manifest, open_embeddings(root, manifest, verify), metadata, model, device)

    def __len__(self) -> int:
        return len(self.embeddings)

    def query(
        self,
        text: str | None = None,
        ecg: Any = None,
        *,
        k: int = 10,
        where: str | None = None,
        approximate: bool = False,
    ) -> list[Hit]:
        """The `k` recordings nearest to a sentence or to an ECG, best first.

        Args:
            text: what to look for, such as "left bundle branch block with old inferior infarct".
            ecg: instead of a text, a recording: a path, an `ECGRecord`, or anything with its fields.
            k: how many; fewer come where fewer meet the condition.
            where: condition on the metadata (`conditions`), such as `"age >= 65 and sex == 'female'"`.
            approximate: by FAISS, if the index was built with it. Not together with `where`.

        Raises:
            ValueError: where not exactly one of `text` and `ecg` is given, `k` is below 1, the condition is not
                understood, or the model's door refuses the ECG.
            IndexRefused: a ValueError, for a model other than the one the index was built with.
            OSError: where the model or the ECG's file cannot be read.

        Without a condition or FAISS this is exact: the order is that of the stored embeddings' products in float64,
        equal ones in the order of the rows.
        """
        if (text is None) == (ecg is None):
            raise ValueError("query: expected either text or ecg, got " + ("none." if text is None else "both."))
        embeds = self.embed_texts([text]) if ecg is None else self.embed_ecgs([ecg])
        return self.nearest(embeds, k=k, where=where, approximate=approximate)[0]

    def nearest(
        self, embeds: np.ndarray, *, k: int = 10, where: str | None = None, approximate: bool = False
    ) -> list[list[Hit]]:
        """The `k` recordings nearest to each of `embeds (Q, P)`: many queries at once, or vectors of your own.

        Arguments and errors as `query`; ValueError also for another width, and for rows that are zero or not finite.
        """
        queries = unit_length("embeds", embeds)
        if approximate and where is not None:
            raise ValueError("approximate: FAISS knows no conditions: leave out where, or search exactly.")
        if approximate:
            candidates = self._faiss.candidates(queries, k)
            pairs = zip(queries, candidates, strict=True)
            found = [best_rows(self.embeddings, query, k, rows) for query, rows in pairs]
        else:
            among = None if where is None else rows_where(self.metadata, where)
            found = nearest_rows(self.embeddings, queries, k, among)
        return [self._hits(rows, scores) for rows, scores in found]

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """`(Q, P)` float32 embeddings of sentences, by the index's model. Errors as `query`."""
        model, processor = self._loaded
        return embed_texts(model, processor, texts)

    def embed_ecgs(self, ecgs: Sequence[Any]) -> np.ndarray:
        """`(Q, P)` float32 embeddings of recordings: paths, records, or a mix. Errors as `query`."""
        model, processor = self._loaded
        records = [read_record(ecg) if isinstance(ecg, str | os.PathLike) else ecg for ecg in ecgs]
        device = next(model.parameters()).device
        inputs = processor.feature_extractor(records, device=device, return_tensors="pt")
        with evaluation_mode(model):
            return model.get_ecg_features(**inputs).float().cpu().numpy()

    # ----- what is made when it is first needed ----------------------------------------------------------------------

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The model and its processor, which must be those of the index."""
        given = self._model if self._model is not None else self._named_model()
        model, processor = given if isinstance(given, tuple) else load_model(given, self._device)
        expected, got = self.manifest["identity"], identity_of(model, processor)
        for part, told in {"weights": "model", "door": "feature extractor"}.items():
            if expected[part] != got[part]:
                raise IndexRefused(
                    f"{self._folder}: expected the {told} that built it ({part} {expected[part][:12]}), got another "
                    f"one ({got[part][:12]}): query with that model, or build an index with this one."
                )
        return model, processor

    def _named_model(self) -> str:
        name = self.manifest["model"]
        if name is None:
            raise ValueError(f"{self._folder}: does not say where its model is: pass model=... (--model).")
        if not name.endswith("/"):
            return name
        path = self._folder.absolute() / name
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: expected the model that built the index, got none: pass model=...")
        return os.fspath(path.resolve())

    @cached_property
    def _faiss(self) -> FaissSearch:
        return FaissSearch(faiss_file(self._folder, self.manifest, verify=True))

    def _hits(self, rows: np.ndarray, scores: np.ndarray) -> list[Hit]:
        found = self.metadata.take(rows).to_pylist()
        return [
            Hit(metadata.pop("record_id"), float(score), int(row), metadata)
            for row, score, metadata in zip(rows, scores, found, strict=True)
        ]

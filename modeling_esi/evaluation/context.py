"""What every protocol works with: a model, its random-weights twin, the records of each split, their embeddings.

Everything is made when it is asked for, and once. Embeddings are also kept on disk, under a hash of the weights, the
records and the settings of the door.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from datasets_scripts import load_ecg_dataset
from datasets_scripts.loading import NoRecordsError, is_folder
from datasets_scripts.preparation.hub_repository import DatasetRepository, is_repository
from datasets_scripts.preparation.prepare import MANIFEST_FILE, read_manifest

from .door_check import refused_rows
from .embedding import embed_ecgs, embed_texts
from .embedding_cache import cached_array, default_cache_dir, key_of, records_digest, weights_digest
from .leakage import Leakage, leakage_of

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

LAYERS = ("projected", "pooled")
SPLIT_NAMES = ("train", "validation", "test")


@dataclass
class EvaluationContext:
    """A model and a data set, ready to be judged.

    Attributes:
        model: an `ESIModel` in evaluation mode, on `device`.
        processor: its `ESIProcessor`.
        dataset: name of a source, prepared folder, or repository of the Hub.
        data_dir: the source's folder.
        dataset_options: the source's own options; PTB-XL is read with all its codes as labels (`task="all"`).
        split: which split is judged.
        text: which text the records carry; `"none"` keeps records without any.
        limit: at most so many records of each split.
        name: what the model is called.
        card: text of the model's card, which names its training data; empty where there is none.
        batch_size: records at a time.
        window: each ECG is the mean of half-overlapping windows of so many seconds; None: seen at once.
        device: where to compute.
        num_resamples: of the bootstrap.
        seed: of the twin's weights, of draws and of training.
        cache_dir: where embeddings are kept; None: nowhere.
        num_workers: processes that read a source's files.
        progress: show progress bars.
        output: folder of the results, where a protocol may write plots; None: none are written.
        compare: a second model and its processor, judged beside the first one (paired).
        compare_name, compare_card: of the second model, as `name` and `card`.
        dataset_rows: splits that are loaded already, by name.
    """

    model: nn.Module
    processor: Any
    dataset: str
    data_dir: str | None = None
    dataset_options: dict[str, Any] = field(default_factory=dict)
    split: str = "test"
    text: str | None = "none"
    limit: int | None = None
    name: str = "model"
    card: str = ""
    batch_size: int = 64
    window: float | None = None
    device: str | torch.device = "cpu"
    num_resamples: int = 1000
    seed: int = 0
    cache_dir: str | os.PathLike[str] | None = None
    num_workers: int = 1
    progress: bool = False
    output: Path | None = None
    compare: tuple[nn.Module, Any] | None = None
    compare_name: str = "other model"
    compare_card: str = ""
    dataset_rows: dict[str, datasets.Dataset] = field(default_factory=dict)
    refused: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    _arrays: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)
    _digests: dict[int, str] = field(default_factory=dict, init=False, repr=False)
    _checked: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.dataset == "ptb_xl":  # every task follows from the codes, so that records are prepared once for all
            self.dataset_options = {"task": "all"} | self.dataset_options

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        dataset: str | os.PathLike[str],
        *,
        compare: str | os.PathLike[str] | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> EvaluationContext:
        """The context of a model by its folder or Hub name; `settings` are fields of this class.

        Raises OSError or ValueError where model or data set cannot be read.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        settings.setdefault("cache_dir", default_cache_dir())
        if compare is not None:
            settings |= {"compare": load_model(compare, device), "compare_card": read_card(compare)}
            settings["compare_name"] = _name_of(compare)
        loaded, processor = load_model(model, device)
        return cls(
            loaded,
            processor,
            os.fspath(dataset),
            name=_name_of(model),
            card=read_card(model),
            device=device,
            **settings,
        )

    # ----- records ---------------------------------------------------------------------------------------------------

    def rows(self, split: str | None = None) -> datasets.Dataset:
        """The records of a split (default: the judged one) that the door takes; `"all"` is all splits.

        Those that it refuses are counted, named in the log and kept in `refused`. Raises NoRecordsError for a split
        without records.
        """
        split = split or self.split
        if split not in self._checked:
            self._checked[split] = self._without_refused(split, self._load(split))
        return self._checked[split]

    def has_split(self, split: str) -> bool:
        """Whether the data set has records in `split`."""
        if self.dataset_rows and split not in self.dataset_rows:
            return False
        try:
            return len(self.rows(split)) > 0
        except NoRecordsError:
            return False

    def split_of(self, record_ids: Collection[str]) -> str:
        """`"test"` where all these records lie in the data set's own test split, else `"all"`."""
        is_test = self.has_split("test") and set(record_ids) <= set(self.rows("test")["record_id"])
        return "test" if is_test else "all"

    def _load(self, split: str) -> datasets.Dataset:
        if split in self.dataset_rows:
            return self.dataset_rows[split]
        is_prepared = is_folder(self.dataset) or is_repository(self.dataset)
        text = None if is_prepared else self.text
        where = None if split == "all" else split
        return load_ecg_dataset(
            self.dataset, None if is_prepared else self.data_dir, where, text, limit=self.limit,
            num_workers=self.num_workers, **self.dataset_options,
        )  # fmt: skip

    def _without_refused(self, split: str, dataset: datasets.Dataset) -> datasets.Dataset:
        door = self.processor.feature_extractor
        refused = refused_rows(dataset, door) if hasattr(door, "reject_reason") else {}
        self.refused[split] = {record_id: reason for record_id, reason in refused.values()}
        if refused:
            first = "; ".join(f"{record_id}: {reason}" for record_id, reason in list(self.refused[split].items())[:5])
            logger.warning("%s: %d of %d records refused at the door: %s", split, len(refused), len(dataset), first)
            return dataset.select([row for row in range(len(dataset)) if row not in refused])
        return dataset

    # ----- models ----------------------------------------------------------------------------------------------------

    @cached_property
    def twin(self) -> nn.Module:
        """A model of the same configuration with random weights: the floor. Random numbers outside stay as they are."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return type(self.model)(self.model.config).to(self.device).eval()

    def models(self) -> dict[str, tuple[nn.Module, Any]]:
        """`trained`, `random_weights` and, where one is given, `compared`: each a model and its processor."""
        judged = {"trained": (self.model, self.processor), "random_weights": (self.twin, self.processor)}
        return judged | ({"compared": self.compare} if self.compare is not None else {})

    # ----- embeddings ------------------------------------------------------------------------------------------------

    def ecg_embeds(
        self, split: str | None = None, role: str = "trained", layer: str = "projected", records: Any = None
    ) -> np.ndarray:
        """`(N, P)` float32 embeddings of the records of a split, in the order of `rows(split)`.

        Args:
            split: default: the judged one.
            role: which model of `models()`.
            layer: `"projected"`, in the space of the texts, L2-normalised; or `"pooled"`, the encoder's own vector.
            records: other rows than the split's, such as changed copies of them (`datasets.Dataset`).
        """
        dataset = self.rows(split) if records is None else records
        model, processor = self.models()[role]
        door = processor.feature_extractor
        settings = door.to_dict() if hasattr(door, "to_dict") else repr(type(door))
        key = key_of("ecg", layer, self._weights(model), self._records(dataset), settings, self.window)
        return self._kept(
            key,
            lambda: embed_ecgs(
                model, door, dataset, self.batch_size, self.device, self.progress, layer=layer, window=self.window
            ),
        )

    def text_embeds(self, texts: list[str], role: str = "trained") -> np.ndarray:
        """`(N, P)` float32 embeddings of texts, L2-normalised."""
        model, processor = self.models()[role]
        key = key_of("text", self._weights(model), getattr(processor, "max_text_length", None), texts)
        return self._kept(key, lambda: embed_texts(model, processor, texts, device=self.device, progress=self.progress))

    def _kept(self, key: str, compute: Any) -> np.ndarray:
        if key not in self._arrays:
            self._arrays[key] = compute() if self.cache_dir is None else cached_array(self.cache_dir, key, compute)
        return self._arrays[key]

    def _weights(self, model: nn.Module) -> str:
        if id(model) not in self._digests:
            self._digests[id(model)] = weights_digest(model)
        return self._digests[id(model)]

    def _records(self, dataset: datasets.Dataset) -> str:
        known = next((split for split, rows in self._checked.items() if rows is dataset), None)
        if known is None:
            return records_digest(dataset)
        if known not in self._digests:
            self._digests[known] = records_digest(dataset)
        return self._digests[known]

    # ----- what stands beside the figures ----------------------------------------------------------------------------

    def leakage(self, split: str | None = None) -> Leakage:
        """What the model's card says of its training data, held against the judged data set (default: its split)."""
        return leakage_of(self.card, self.source, split or self.split)

    def compared_leakage(self, split: str | None = None) -> Leakage:
        """The same of the second model."""
        return leakage_of(self.compare_card, self.source, split or self.split)

    @cached_property
    def source(self) -> str:
        """The name of the source, also of a prepared folder."""
        if self.dataset_rows or not (is_folder(self.dataset) or is_repository(self.dataset)):
            return self.dataset
        return str(self.manifest["settings"]["name"])

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest of a prepared folder or repository; empty for a source."""
        if self.dataset_rows:
            return {}
        if is_repository(self.dataset):
            return DatasetRepository.find(self.dataset).read_json(MANIFEST_FILE)
        return read_manifest(self.dataset) if is_folder(self.dataset) else {}

    def refuse_window(self, protocol: str) -> None:
        """ValueError where a window is set, for a protocol that has no use for one."""
        if self.window is not None:
            raise ValueError(f"window: expected none with {protocol}, which sees ECGs at once, got {self.window:g}.")

    def settings(self) -> dict[str, Any]:
        """What decides the figures, without paths of this machine."""
        return {
            "dataset": self.source, "dataset_options": self.dataset_options, "split": self.split, "limit": self.limit,
            "num_resamples": self.num_resamples, "seed": self.seed, "window": self.window,
            "refused_records": {split: sorted(refused) for split, refused in self.refused.items() if refused},
        }  # fmt: skip


def load_model(name: str | os.PathLike[str], device: str | torch.device = "cpu") -> tuple[nn.Module, Any]:
    """An ESI model in evaluation mode and its processor, from a folder or the Hub.

    Raises OSError or ValueError where there is none, or only a part of one, such as a classifier without text encoder.
    """
    from transformers import AutoModel, AutoProcessor

    from modeling_esi import ESIModel  # registers the Auto classes: no code of the folder is run

    model, loaded = AutoModel.from_pretrained(name, output_loading_info=True)
    missing = sorted({key.partition(".")[0] for key in loaded["missing_keys"]})
    if not isinstance(model, ESIModel) or missing:
        lacking = f" without weights for {', '.join(missing)}" if missing else ""
        raise ValueError(
            f"model: expected a whole ESIModel, encoders and projections, got {type(model).__name__}{lacking} in "
            f"{name}: name the model that it was made from."
        )
    return model.to(device).eval(), AutoProcessor.from_pretrained(name)


def _name_of(name: str | os.PathLike[str]) -> str:
    """What a model is called: the last part of a folder, resolved since it may be `.`; a name on the Hub as it is."""
    return Path(name).resolve().name if Path(name).exists() else str(name)


def read_card(name: str | os.PathLike[str]) -> str:
    """The model's card: `README.md` of its folder or of its repository on the Hub; empty where there is none."""
    folder = Path(name)
    if folder.is_dir():
        path = folder / "README.md"
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(str(name), "README.md")).read_text(encoding="utf-8")
    except (EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        logger.warning("%s: no model card could be read (%s), so its training data are not known.", name, error)
        return ""


def parse_options(text: str | None) -> Mapping[str, Any]:
    """Options of a source from JSON. Raises ValueError where they are no mapping."""
    options = json.loads(text) if text else {}
    if not isinstance(options, dict):
        raise ValueError(f'dataset_options: expected a JSON mapping such as {{"sampling_rate": 100}}, got {text!r}.')
    return options

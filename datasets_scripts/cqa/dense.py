"""Dense embeddings of text by any encoder that transformers loads, from the Hub or a folder.

Mean pooling over the tokens that are no padding, then length 1, as Sentence-BERT (https://arxiv.org/abs/1908.10084):
the dot product of two embeddings is their cosine. Small encoders such as `sentence-transformers/all-MiniLM-L6-v2` read
a thousand pages in minutes on two cores. torch and transformers are imported when an encoder is made, never before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

MAX_TOKENS = 384  # 200 words with title and chapter
BATCH_SIZE = 32


class Encoder(Protocol):
    """What the retriever asks of an encoder; `name` finds it again when an index is loaded."""

    name: str

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """`(len(texts), width)` float32, each row of length 1."""
        ...


class TextEncoder:
    """An encoder of text by its name on the Hub or its folder. No code of a repository is run.

    Raises ImportError without transformers or torch; OSError or ValueError, by transformers, where there is no such
    encoder.
    """

    def __init__(self, name: str, batch_size: int = BATCH_SIZE, max_tokens: int = MAX_TOKENS) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.name = name
        self._batch_size = batch_size
        self._tokenizer = AutoTokenizer.from_pretrained(name)
        self._model: Any = AutoModel.from_pretrained(name).eval()
        positions = getattr(self._model.config, "max_position_embeddings", max_tokens)
        self._max_tokens = min(max_tokens, positions, self._tokenizer.model_max_length)

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """`(len(texts), width)` float32, each row of length 1. Long texts are cut at the end."""
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # neighbours of one length need little padding
        embeddings = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        starts = range(0, len(order), self._batch_size)
        for start in tqdm(starts, desc="embedding", unit="batch", disable=not progress):
            rows = order[start : start + self._batch_size]
            embeddings[rows] = self._encode_batch([texts[row] for row in rows])
        return embeddings

    def _encode_batch(self, texts: list[str]) -> np.ndarray:
        import torch

        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._model.device)
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            return torch.nn.functional.normalize(means, dim=-1).cpu().numpy()

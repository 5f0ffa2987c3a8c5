"""A linear probe on disk: what `linear_probe` learned, for `robustness` and for whoever wants its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from .logistic import LinearModel

NEEDED = ("coef", "intercept", "label_names")


@dataclass(frozen=True)
class SavedProbe:
    """A linear model `(P, C)` and the layer whose embeddings it takes, `"pooled"` or `"projected"`."""

    model: LinearModel
    layer: str


def save_probe(path: str | PathLike[str], model: LinearModel, label_names: Sequence[str], layer: str) -> None:
    """Write `coef (C, P)`, `intercept (C,)`, `label_names (C,)` and `layer` to an `.npz`, whose folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, coef=model.weight.T, intercept=model.bias, label_names=np.array(label_names, str), layer=layer)


def read_probe(path: str | PathLike[str], label_names: Sequence[str]) -> SavedProbe:
    """The probe of a file, its columns in the order of `label_names`: `embeds @ coef.T + intercept`.

    The file is `.npz` with `coef (C, P)`, `intercept (C,)` and `label_names (C,)`; where it has `mean (P,)` and
    `scale (P,)`, embeddings are standardised by these first; without `layer` they are the projected ones.

    Raises ValueError where something is missing or a label is not there.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if missing := [name for name in NEEDED if name not in arrays]:
        raise ValueError(f"{path}: expected {', '.join(NEEDED)}, got none of {', '.join(missing)}.")
    known = arrays["label_names"].astype(str).tolist()
    if absent := [name for name in label_names if name not in known]:
        raise ValueError(f"{path}: expected a probe of {', '.join(label_names)}, got none for {', '.join(absent)}.")
    columns = [known.index(name) for name in label_names]
    weight = (arrays["coef"][columns] / arrays.get("scale", 1.0)).T
    bias = arrays["intercept"][columns] - arrays.get("mean", np.zeros(len(weight))) @ weight
    model = LinearModel(weight.astype(np.float32), bias.astype(np.float32))
    return SavedProbe(model, str(arrays.get("layer", "projected")))

"""A linear probe on disk: the same scores, columns by name, files that are checked."""

from types import SimpleNamespace

import numpy as np
import pytest

from modeling_esi.evaluation.logistic import LinearModel
from modeling_esi.evaluation.probe_file import read_probe, save_probe


def test_what_is_saved_is_read_with_its_columns_by_name(tmp_path):
    rng = np.random.default_rng(0)
    model = LinearModel(rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32))
    embeds = rng.normal(size=(7, 5))
    save_probe(tmp_path / "new" / "probe.npz", model, ("NORM", "MI", "CD"), "pooled")
    saved = read_probe(tmp_path / "new" / "probe.npz", ["CD", "NORM"])
    np.testing.assert_array_equal(saved.model.scores(embeds), model.scores(embeds)[:, [2, 0]])
    assert saved.layer == "pooled"


def test_embeddings_are_standardised_where_the_file_says_so(tmp_path):
    path = tmp_path / "probe.npz"
    np.savez(
        path, coef=[[1.0, 0.0], [0.0, 2.0]], intercept=[0.5, 0.0], label_names=["a", "b"], mean=[1, 1], scale=[2, 1]
    )
    saved = read_probe(path, ["b", "a"])
    np.testing.assert_allclose(saved.model.scores(np.array([[3.0, 2.0]])), [[2.0, 1.5]])
    assert saved.layer == "projected"


def test_a_file_that_does_not_fit_is_told_and_no_pickle_is_read(tmp_path):
    path = tmp_path / "probe.npz"
    np.savez(path, coef=[[1.0]], intercept=[0.0], label_names=["a"])
    with pytest.raises(ValueError, match="got none for c"):
        read_probe(path, ["a", "c"])
    np.savez(path, coef=[[1.0]])
    with pytest.raises(ValueError, match="none of intercept, label_names"):
        read_probe(path, ["a"])
    np.savez(path, coef=[[1.0]], intercept=[0.0], label_names=np.array([SimpleNamespace()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_probe(path, ["a"])

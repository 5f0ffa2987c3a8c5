"""The benchmark of the linear probe on a small case: it runs the real protocol, and says what it measured."""

from modeling_esi.benchmarks import probe
from modeling_esi.evaluation import linear_probe


def test_the_protocol_runs_on_embeddings_that_are_there_with_floor_and_subgroups():
    context = probe.embedded_records(440, 13, 3)
    context.num_resamples = 10
    result = linear_probe.run(context, fractions=(1.0,), seeds=(42,))
    assert result.trained["random/100%/num_train_records"] == 352
    assert result.trained["random/100%/macro_auroc"] > 0.6
    assert "random/100%/macro_auroc" in result.random_weights
    attributes = {row["attribute"] for row in result.tables["random/100%: subgroups"]}
    assert attributes == {"all", "sex", "age"}


def test_patients_lie_in_one_split_each():
    context = probe.embedded_records(440, 13, 3)
    people = [set(context.rows(split)["patient_id"]) for split in probe.FOLDS]
    assert not (people[0] & people[2] or people[1] & people[2] or people[0] & people[1])
    assert len(people[0]) < len(context.rows("train"))


def test_the_table_has_wall_and_cpu_seconds(monkeypatch):
    monkeypatch.setattr(probe, "measured", lambda *_: {"one fit, all strengths, wall": 1.25})
    assert list(probe.run(100)) == [
        "linear probe, logistic, 100 records x 1,024, 71 classes, all labels, 2 threads",
        "one fit, all strengths, wall         1.2 s",
    ]

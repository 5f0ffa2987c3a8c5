"""Retrieval as a protocol: intervals over patients, equal texts, records without a text."""

import numpy as np
import pytest
from datasets import Dataset
from tiny_esi import tiny_esi
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from datasets_scripts.records import ECGRecord, record_to_row, row_features
from modeling_esi import ESIFeatureExtractor, ESIProcessor
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.retrieval import retrieval, run


def test_intervals_over_patients_hold_the_recall():
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(60, 8))
    ecgs = texts + 0.8 * rng.normal(size=texts.shape)
    result = retrieval(ecgs, texts, groups=[i // 2 for i in range(60)], num_resamples=100, prefix="t/")
    plain = retrieval(ecgs, texts, prefix="t/")
    for key, value in plain.items():
        assert result[key] == value
        if "recall" in key:
            assert result[f"{key}_low"] <= value <= result[f"{key}_high"]
    assert result["t/ecg_to_text/recall@1_low"] < result["t/ecg_to_text/recall@1_high"]


def test_two_equal_recordings_of_a_patient_are_no_more_evidence_than_one():
    rng = np.random.default_rng(1)
    texts = rng.normal(size=(40, 4))
    ecgs = texts + 1.0 * rng.normal(size=texts.shape)
    names = list(range(40))
    single = retrieval(ecgs, texts, keys=names, groups=names, num_resamples=60)
    double = retrieval(
        np.repeat(ecgs, 2, 0), np.repeat(texts, 2, 0), keys=np.repeat(names, 2).tolist(),
        groups=np.repeat(names, 2).tolist(), num_resamples=60,
    )  # fmt: skip
    for end in ("low", "high"):
        assert double[f"ecg_to_text/recall@1_{end}"] == pytest.approx(single[f"ecg_to_text/recall@1_{end}"])


def test_the_number_of_groups_must_fit():
    with pytest.raises(ValueError, match="groups: expected one for each of the 3 records, got 2"):
        retrieval(np.eye(3), np.eye(3), groups=["a", "b"])


# ----- the protocol --------------------------------------------------------------------------------------------------


def processor() -> ESIProcessor:
    words = ["[PAD]", "[UNK]", "sinus", "rhythm", "fibrillation", "block", "left"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    return ESIProcessor(ESIFeatureExtractor(sampling_rate=100, duration=2.0), fast, max_text_length=9)


def rows(texts: list[str]) -> Dataset:
    stored = []
    for i, text in enumerate(texts):
        signal = np.random.default_rng(i).normal(size=(2, 200)).astype(np.float32)
        names = {"record_id": str(i), "patient_id": f"p{i // 2}", "text": text, "report": text}
        names["age"] = 70.0 if i % 2 else 30.0
        stored.append(record_to_row(ECGRecord(signal, ("I", "II"), 100, **names)))
    return Dataset.from_list(stored, features=row_features("float32"))


def test_the_protocol_counts_equal_texts_as_right_and_tells_who_has_none():
    test = rows(["sinus rhythm", "sinus rhythm", "left block", "", "fibrillation", "sinus rhythm"])
    model = tiny_esi(caption_loss_weight=0.0)
    context = EvaluationContext(model, processor(), "toy", dataset_rows={"test": test}, num_resamples=10)
    result = run(context)
    assert result.trained["num_candidates"] == 5
    assert result.left_out == {"1 records": "without a text"}
    assert "5 candidates of 3 patients: compare only equal numbers" in result.to_text()
    assert {"ecg_to_text/recall@1", "num_candidates"} <= result.random_weights.keys() < result.trained.keys()
    assert {"ecg_to_text/recall@5", "text_to_ecg/recall@1_low"} <= result.trained.keys()
    groups = {(row["attribute"], row["group"]): row for row in result.tables["Subgroups"]}
    young, old = groups["age", "18-39"], groups["age", "65-79"]
    assert (young["num_records"], old["num_records"], old["num_patients"]) == (3, 2, 2)  # one old one has no text
    name = "ecg_to_text/recall@1"
    assert 3 * young[name] + 2 * old[name] == pytest.approx(5 * result.trained[name])  # candidates stay all
    assert groups["all", "all"][name] == result.trained[name]
    assert "patients 3, at least 10" in young["note"] and f"{name}_low" not in young
    strict = run(context, equal_texts=False, subgroups=False)
    assert not strict.tables
    # three of five texts are the same: whichever is found first, being one of three is right more often than being it
    assert strict.trained["ecg_to_text/recall@1"] < result.trained["ecg_to_text/recall@1"]


def test_records_without_texts_cannot_be_judged():
    context = EvaluationContext(None, processor(), "toy", dataset_rows={"test": rows(["", "", ""])})
    with pytest.raises(ValueError, match="got 0 of 3: choose which text"):
        run(context)

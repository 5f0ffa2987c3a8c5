"""Captioning: texts judged by hand, a model that writes, models that cannot, and what stands beside the figures."""

import json

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
from modeling_esi.evaluation.captioning import captioning, finding_scores, run, write_reports
from modeling_esi.evaluation.context import EvaluationContext

pytest.importorskip("sacrebleu", reason="needs the extra eval")
pytest.importorskip("rouge_score", reason="needs the extra eval")

TRUE = ["sinus rhythm, left axis deviation", "atrial fibrillation", "sinus rhythm", "atrial fibrillation, LVH"]
PROMPTS = {
    "AFIB": ["ECG Findings: atrial fibrillation."], "LVH": ["left ventricular hypertrophy"], "SR": ["sinus rhythm"],
    "WPW": ["Wolff-Parkinson-White"],
}  # fmt: skip
LABELS = [["SR"], ["AFIB"], ["SR"], ["AFIB", "LVH"]]


def test_the_true_texts_score_one_and_another_records_less():
    people = [f"p{i}" for i in range(4)]
    result = captioning(TRUE, TRUE, people, num_resamples=200, prefix="t/")
    for key in ("bleu1", "bleu4", "rouge_l"):
        assert result[f"t/{key}"] == pytest.approx(1.0)
        assert result[f"t/another_record/{key}"] < 0.6
    assert result["t/bleu1_low"] == pytest.approx(1.0)
    assert result["t/bleu4_low"] == 0.0  # texts of two words alone hold no four in a row
    assert (result["t/num_records"], result["t/num_different_texts"]) == (4, 4)
    assert captioning(["sinus rhythm"] * 4, TRUE, people, num_resamples=0)["num_different_texts"] == 1


def test_intervals_hold_the_figures():
    rng = np.random.default_rng(0)
    words = np.array("sinus rhythm left axis block wave".split())
    true = [" ".join(rng.choice(words, 6)) for _ in range(40)]
    written = [" ".join(rng.choice(words, 6)) for _ in range(40)]
    result = captioning(written, true, [i // 2 for i in range(40)], num_resamples=60)
    for key in ("bleu1", "rouge_l"):
        assert result[f"{key}_low"] < result[key] < result[f"{key}_high"]
    with pytest.raises(ValueError, match="each of the 40 records, got 3"):
        captioning(written, true, [1, 2, 3])


def test_findings_by_hand():
    written = ["Sinus rhythm.", "Sinus rhythm.", "No sinus rhythm.", "AFib and left ventricular hypertrophy."]
    result = finding_scores(written, TRUE, LABELS, PROMPTS, range(4), num_resamples=0)
    # found SR, SR, nothing, AFIB and LVH; true SR, AFIB, SR, AFIB and LVH: three right of four said and five true
    assert result["label_f1_micro"] == pytest.approx(2 * 3 / (4 + 5))
    each = {"AFIB": 2 / 3, "LVH": 1.0, "SR": 1 / 2}
    assert {name: result[f"label_f1/{name}"] for name in each} == pytest.approx(each)
    assert "label_f1/WPW" not in result and result["num_positives/WPW"] == 0
    assert result["label_f1_macro"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert result["num_positives/AFIB"] == 2 and result["labels_left_out"] == ["WPW"]
    assert result["true_report/label_f1_micro"] == 1.0
    assert list(result)[-1] == "labels_left_out"


def test_a_finding_too_rare_for_an_interval_is_told():
    labels = [[f"L{i}"] for i in range(30)]
    prompts = {f"L{i}": [f"finding {i}"] for i in range(30)}
    texts = [f"finding {i}" for i in range(30)]
    result = finding_scores(texts, texts, labels, prompts, range(30), num_resamples=20)
    assert result["label_f1_macro"] == 1.0 and "rarest labels" in result["label_f1_macro_note"]


# ----- the protocol --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processor() -> ESIProcessor:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({w for text in TRUE for w in text.replace(",", " ,").split()})]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    return ESIProcessor(ESIFeatureExtractor(sampling_rate=100, duration=2.0), fast, max_text_length=9)


def rows(texts: list[str], labels: list[list[str]]) -> Dataset:
    stored = []
    for i, (text, held) in enumerate(zip(texts, labels, strict=True)):
        signal = np.random.default_rng(i).normal(size=(2, 200)).astype(np.float32)
        names = {"record_id": str(i), "patient_id": f"p{i}", "text": text, "labels": tuple(held)}
        stored.append(record_to_row(ECGRecord(signal, ("I", "II"), 100, **names)))
    return Dataset.from_list(stored, features=row_features("float32"))


def test_the_protocol_writes_judges_and_keeps_the_texts(processor, tmp_path):
    test = rows([*TRUE, ""], [*LABELS, ["SR"]])
    context = EvaluationContext(
        tiny_esi(), processor, "toy", dataset_rows={"test": test}, num_resamples=10, output=tmp_path
    )
    result = run(context, max_new_tokens=5)
    assert result.trained["num_records"] == 4 and result.left_out == {"1 records": "without a text"}
    assert {"bleu4", "rouge_l", "label_f1_macro", "another_record/bleu4"} <= result.trained.keys()
    assert {key for key in result.random_weights if "note" not in key} >= {"bleu4", "label_f1_micro"}
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [line["record_id"] for line in lines] == ["0", "1", "2", "3"] and lines[1]["true"] == TRUE[1]
    assert len(result.tables["Examples"]) == 4
    positives = {row["figure"]: row["num_positives"] for row in result.rows()}
    assert (positives["label_f1/AFIB"], positives["label_f1_macro"]) == (2, None)
    everybody = result.tables["Subgroups"][0]
    assert (everybody["group"], everybody["num_records"]) == ("all", 4)
    assert everybody["rouge_l"] == result.trained["rouge_l"]
    assert everybody["label_f1_micro"] == result.trained["label_f1_micro"]
    result.save(tmp_path)
    again = write_reports(context.model, processor, test, batch_size=2, max_new_tokens=5)
    assert again[:4] == [line["written"] for line in lines] and len(again) == 5
    assert not any("[" in text for text in again)  # no start, end or padding


def test_reports_that_the_matcher_does_not_understand_are_told(processor):
    test = rows(["sinus rhythm", "rythme sinusal", "fibrillation auriculaire"], [["sinus rhythm"], ["SR"], ["AFIB"]])
    context = EvaluationContext(tiny_esi(), processor, "toy", dataset_rows={"test": test}, num_resamples=0)
    assert "finds few of the labels" in run(context, max_new_tokens=2).notes[0]


def test_models_that_cannot_write_say_so(processor):
    for variant, match in (("released", "'released' decoder reads states"), ("esi", "has no decoder")):
        weights = {"caption_loss_weight": 0.0} if variant == "esi" else {}
        context = EvaluationContext(
            tiny_esi(variant, **weights), processor, "toy", dataset_rows={"test": rows(TRUE, LABELS)}
        )
        with pytest.raises(ValueError, match=match):
            run(context)


def test_windows_are_refused_since_a_report_is_of_the_whole_record(processor):
    context = EvaluationContext(None, processor, "toy", dataset_rows={"test": rows(TRUE, LABELS)}, window=0.5)
    with pytest.raises(ValueError, match="window: expected none with captioning"):
        run(context)


def test_records_without_texts_cannot_be_judged(processor):
    context = EvaluationContext(None, processor, "toy", dataset_rows={"test": rows(["", ""], [[], []])})
    with pytest.raises(ValueError, match="got none of 2: choose which text"):
        run(context)

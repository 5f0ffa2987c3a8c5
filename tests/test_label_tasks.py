"""Label tasks: PTB-XL's six by independent counting, MERL's split files, prompts, subgroups, zero-shot over them."""

import ast
import csv
import json
from pathlib import Path

import numpy as np
import pytest
from test_context import processor as processor  # noqa: F401  a fixture
from test_context import record, stored
from tiny_esi import tiny_esi

from datasets_scripts import snomed, synthetic
from datasets_scripts.cpsc2018 import label_names as cpsc2018_names
from datasets_scripts.ptb_xl_labels import TASKS, label_names, label_prompts
from modeling_esi.evaluation import zero_shot
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.merl_splits import find_table, read_split_table
from modeling_esi.evaluation.prompts import read_prompts, shipped_prompts, statement_prompts, training_prompts
from modeling_esi.evaluation.subgroups import age_band, subgroup_rows
from modeling_esi.evaluation.task_sources import load_tasks

PTB_XL = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "ptbxl"
needs_ptb_xl = pytest.mark.skipif(not PTB_XL.is_dir(), reason="needs PTB-XL's tables in ../shared/data/ptbxl")
MERL_CSN = "AQW UW SR WPW 2AVB AT VB ARS STTC SA STE VPB TWO STTU ALS APB 2AVB1 PRIE CCR CR AF AVB QTIE LBBB VEB SVT "
MERL_CSN += "RBBB 1AVB STDD MI AFIB TWC PWC ERV RVH LVH ST JEB"


# ----- PTB-XL --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ptb_xl(processor):  # noqa: F811
    """The real table's rows with small signals: labels are all codes, splits by fold."""
    with (PTB_XL / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    fold_of = {"train": range(1, 9), "validation": (9,), "test": (10,)}
    rows = {
        split: stored(
            [
                record(int(row["ecg_id"]), record_id=row["ecg_id"], patient_id=row["patient_id"],
                       labels=tuple(ast.literal_eval(row["scp_codes"])))
                for row in table if int(row["strat_fold"]) in folds
            ]
        )
        for split, folds in fold_of.items()
    }  # fmt: skip
    context = EvaluationContext(tiny_esi(), processor, "ptb_xl", str(PTB_XL), dataset_rows=rows, num_resamples=10)
    return table, context


@needs_ptb_xl
def test_the_six_tasks_equal_independent_counting(ptb_xl):
    table, context = ptb_xl
    with (PTB_XL / "scp_statements.csv").open(newline="", encoding="utf-8") as file:
        statements = {row[""]: row for row in csv.DictReader(file)}

    def labels_of(row, task):
        codes = [statements[code] for code in ast.literal_eval(row["scp_codes"])]
        if task in ("form", "rhythm"):
            return {code[""] for code in codes if code[task] == "1.0"}
        column = {"superdiagnostic": "diagnostic_class", "subdiagnostic": "diagnostic_subclass"}.get(task, "")
        return {code[column] for code in codes if task == "all" or code["diagnostic"] == "1.0"}

    tasks = load_tasks(context)
    assert [task.name for task in tasks] == list(TASKS)
    assert [len(task.label_names) for task in tasks] == [71, 44, 23, 5, 19, 12]
    for task in tasks:
        assert list(task.label_names) == label_names(task.name, PTB_XL)
        for split, folds in {"train": "12345678", "validation": "9", "test": ["10"]}.items():
            expected = [labels for row in table if row["strat_fold"] in folds and (labels := labels_of(row, task.name))]
            found = task.splits[split]
            assert len(found) == len(expected)
            held = [{task.label_names[c] for c in np.flatnonzero(row)} for row in found.targets]
            assert held == expected


@needs_ptb_xl
def test_zero_shot_runs_on_the_tasks_with_shipped_short_and_own_prompts(ptb_xl, tmp_path):
    context = ptb_xl[1]
    result = zero_shot.run(context, tasks=["superdiagnostic", "form"])
    assert [k for k in result.trained if k.startswith("superdiagnostic/auroc/")] == [
        f"superdiagnostic/auroc/{name}" for name in ("CD", "HYP", "MI", "NORM", "STTC")
    ]
    assert result.trained["superdiagnostic/num_records"] == 39 and "superdiagnostic/macro_f1" in result.trained
    assert result.random_weights["form/macro_auroc"] is not None
    assert any("records without a label are left out" in note for note in result.notes)
    own = tmp_path / "own.json"
    own.write_text(json.dumps({name: f"word{i}" for i, name in enumerate(("CD", "HYP", "MI", "NORM", "STTC"))}))
    for prompts in ("short", "statements", str(own)):
        other = zero_shot.run(context, tasks=["superdiagnostic"], prompts=prompts, softmax=True, subgroups=False)
        assert "softmax" in other.protocol and other.trained["superdiagnostic/num_records"] == 39
        assert other.settings["prompts"] == (prompts if prompts != str(own) else "own file")
    own.write_text(json.dumps({"CD": "word1"}))
    with pytest.raises(ValueError, match="a text for each class of superdiagnostic, got none for HYP, MI"):
        zero_shot.run(context, tasks=["superdiagnostic"], prompts=str(own))


@needs_ptb_xl
def test_thresholds_of_f1_come_from_validation_records_alone(ptb_xl, monkeypatch):
    context, sizes = ptb_xl[1], []
    real = zero_shot.best_f1_thresholds
    monkeypatch.setattr(zero_shot, "best_f1_thresholds", lambda s, t: sizes.append(len(s)) or real(s, t))
    zero_shot.run(context, tasks=["superdiagnostic"], subgroups=False)
    assert sizes == [44, 44]  # of model and floor: the labelled records of fold 9, not the 39 of fold 10


@needs_ptb_xl
def test_a_task_that_is_none_or_cannot_be_had_is_told(ptb_xl):
    with pytest.raises(ValueError, match="task: expected one of all"):
        load_tasks(ptb_xl[1], ["superclass"])
    one = EvaluationContext(None, None, "ptb_xl", str(PTB_XL), {"task": "form"}, dataset_rows=ptb_xl[1].dataset_rows)
    with pytest.raises(ValueError, match="prepared with the labels of form, got rhythm"):
        load_tasks(one, ["rhythm"])


# ----- MERL's split files --------------------------------------------------------------------------------------------


def write_splits(folder: Path, header: str, rows: dict[str, list[str]], prefix: str = "chapman") -> Path:
    folder.mkdir(exist_ok=True)
    for suffix, lines in rows.items():
        (folder / f"{prefix}_{suffix}.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


@pytest.fixture()
def jointly(processor) -> EvaluationContext:  # noqa: F811
    rows = {"all": stored([record(i, record_id=f"JS{i:05d}") for i in range(12)])}
    return EvaluationContext(tiny_esi(), processor, "physionet2021", dataset_rows=rows, split="all", num_resamples=5)


CSN_ROWS = {
    "train": [f'/chapman/WFDBRecords/01/010/JS{i:05d}.mat,12,"SB,STE",0,1,1' for i in range(4)],
    "val": [f"/chapman/WFDBRecords/01/010/JS{i:05d}.mat,12,ST,1,0,0" for i in range(4, 7)],
    "test": ['/c/JS00007.mat,12,"STE",0,1,1', "/c/JS00008.mat,12,ST,0,1,0", "/c/JS99999.mat,12,AFIB,1,0,0"],
}


def test_split_files_name_records_labels_and_their_order(tmp_path, jointly):
    folder = write_splits(tmp_path / "chapman", "ecg_path,age,diagnose,AFIB,ST,STE", CSN_ROWS)
    task = load_tasks(jointly, split_dir=str(folder))[0]
    assert task.label_names == ("AFIB", "ST", "STE")
    assert [len(rows) for rows in task.splits.values()] == [4, 3, 2]
    assert [jointly.rows("all")["record_id"][row] for row in task.splits["test"].rows] == ["JS00007", "JS00008"]
    assert task.splits["test"].targets.tolist() == [[False, True, True], [False, True, False]]
    notes = "\n".join(task.notes)
    assert "test: 1 of 3 records are not at hand: JS99999" in notes
    assert (
        "train: 4 of 8 labels of the columns are not among the record's own diagnoses" in notes and "ST 4 of 4" in notes
    )
    honest = load_tasks(jointly, split_dir=str(folder), split_labels="diagnoses")[0]
    assert honest.splits["test"].targets.tolist() == [[False, False, True], [False, True, False]]


def test_the_layouts_of_cpsc2018_and_ptb_xl_are_read(tmp_path):
    path = tmp_path / "icbeb_test.csv"
    path.write_text(
        "patient_id,ecg_id,filename,validation,age,sex,scp_codes,AFIB,VPC\n677,677,A6729,False,61.0,0,{},0,1\n"
    )
    table = read_split_table(path)
    assert table.record_ids == ["A6729"] and table.label_names == ("AFIB", "VPC") and table.diagnoses is None
    path.write_text(
        "ecg_id,patient_id,strat_fold,filename_lr,filename_hr,super_class,HYP,NORM\n9,18792.0,10,a_lr,a_hr,['NORM'],0,1\n"
    )
    assert read_split_table(path).record_ids == ["9"]
    assert find_table(str(tmp_path), "test") == path


def test_split_files_across_the_splits_of_the_training_are_no_held_out_records(tmp_path, jointly):
    folder = write_splits(tmp_path / "chapman", "ecg_path,age,diagnose,AFIB,ST,STE", CSN_ROWS)
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"AFIB": "word1", "ST": "word2", "STE": "word3"}))
    jointly.card = "## Training data\n\nphysionet2021: 6 train, 6 test records, split by patient.\n"
    jointly.split = "test"
    for in_test, seen in ((range(6, 12), False), (range(8, 12), True)):  # the files judge numbers 7 and 8
        jointly._checked.clear()
        jointly.dataset_rows["test"] = jointly.dataset_rows["all"].select(in_test)
        result = zero_shot.run(jointly, split_dir=str(folder), prompts=str(own), subgroups=False)
        assert result.seen_in_training is seen and ("its training split" in result.leakage) is seen


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"test": CSN_ROWS["train"]}, "no record in two of them, got 4 of test that are also in train"),
        ({"test": ["/c/JS99998.mat,12,ST,0,1,0"]}, "none of the records that its tables name"),
        ({"test": ["/c/JS00008.mat,12,ST,0,1"]}, "expected rows of 6 columns, got another number in line 2"),
        ({"test": []}, "got no rows"),
    ],
)
def test_split_files_that_do_not_fit_are_told(tmp_path, jointly, change, match):
    folder = write_splits(tmp_path / "s", "ecg_path,age,diagnose,AFIB,ST,STE", CSN_ROWS | change)
    with pytest.raises(ValueError, match=match):
        load_tasks(jointly, split_dir=str(folder))
    (folder / "chapman_val.csv").unlink()
    with pytest.raises(ValueError, match=r"expected one \*_val.csv, got none"):
        load_tasks(jointly, split_dir=str(folder))


# ----- prompts -------------------------------------------------------------------------------------------------------


def test_every_class_has_several_different_texts():
    sets = {"cpsc2018": cpsc2018_names(), "csn": [*snomed.label_names("csn"), *MERL_CSN.split()]}
    if PTB_XL.is_dir():
        sets |= {f"ptb_xl {task}": label_names(task, PTB_XL) for task in TASKS}
    sets["cpsc2018"] = [*sets["cpsc2018"], *"AFIB VPC NORM 1AVB CRBBB STE PAC CLBBB STD".split()]
    for name, classes in sets.items():
        prompt_set, _, task = name.partition(" ")
        texts = shipped_prompts(prompt_set, task or None)
        assert not set(classes) - set(texts), name
        assert all(len(set(texts[label])) == len(texts[label]) >= 4 for label in classes)
    assert len(shipped_prompts("ptb_xl")) == 71 and len(MERL_CSN.split()) == 38
    with pytest.raises(ValueError, match="prompts: expected one of"):
        shipped_prompts("mimic")


@needs_ptb_xl
@pytest.mark.parametrize("task", TASKS)
def test_statements_of_ptb_xl_say_each_class_by_all_its_codes(task):
    with (PTB_XL / "scp_statements.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    texts = statement_prompts(task, PTB_XL)
    assert list(texts) == label_names(task, PTB_XL)
    if task == "superdiagnostic":
        of_mi = [row["description"] for row in table if row["diagnostic_class"] == "MI"]
        assert texts["MI"] == [f"ECG Findings: {said}." for said in of_mi] and len(of_mi) == 14
        number = {label: len(said) for label, said in texts.items()}
        assert number == {"CD": 11, "HYP": 5, "MI": 14, "NORM": 1, "STTC": 13}
    elif task != "subdiagnostic":
        assert texts == label_prompts(task, PTB_XL)


def test_one_name_of_two_classes_is_told_apart_by_the_task():
    assert shipped_prompts("ptb_xl", "superdiagnostic")["STTC"] != shipped_prompts("ptb_xl", "subdiagnostic")["STTC"]


@needs_ptb_xl
def test_validation_speaks_the_words_of_the_training_texts():
    task = {"data_dir": PTB_XL, "task": "superdiagnostic"}
    assert training_prompts("ptb_xl", "statements", **task) == statement_prompts("superdiagnostic", PTB_XL)
    for text in ("report", "report_else_statements", None):
        of_reports = training_prompts("ptb_xl", text, **task)
        assert sorted(of_reports) == label_names("superdiagnostic", PTB_XL)
        assert "rechtsschenkelblock" in of_reports["CD"] and all(len(texts) >= 8 for texts in of_reports.values())
    assert training_prompts("ptb_xl", "report", data_dir=PTB_XL, task="form") == label_prompts("form", PTB_XL)
    assert training_prompts("synthetic", "report") == synthetic.label_prompts()


@pytest.mark.parametrize("text", ["[1]", "{", '{"A": []}', '{"A": [""]}', '{"A": 3}', "{}"])
def test_own_prompts_that_are_none_are_told(tmp_path, text):
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(ValueError, match="own.json: expected"):
        read_prompts(tmp_path / "own.json")


# ----- subgroups -----------------------------------------------------------------------------------------------------


def test_subgroups_hold_counts_and_figures_of_their_own_records():
    rng = np.random.default_rng(0)
    targets = rng.random((60, 2)) < 0.5
    scores = np.where(np.arange(60)[:, None] < 30, targets, ~targets).astype(float)  # right on women, wrong on men
    sexes = ["female"] * 30 + ["male"] * 30
    ages = ["80 and over", "under 18"] * 29 + ["not known"] * 2
    rows = subgroup_rows(scores, targets, ["A", "B"], [i // 2 for i in range(60)], {"sex": sexes, "age": ages},
                         num_resamples=20)  # fmt: skip
    found = {(row["attribute"], row["group"]): row for row in rows}
    assert list(found) == [("all", "all"), ("sex", "female"), ("sex", "male"), ("age", "under 18"),
                           ("age", "80 and over"), ("age", "not known")]  # fmt: skip
    assert found["sex", "female"]["macro_auroc"] == 1.0 and found["sex", "male"]["macro_auroc"] == 0.0
    assert (found["sex", "female"]["num_records"], found["sex", "female"]["num_patients"]) == (30, 15)
    assert found["sex", "female"]["macro_auroc_low"] == 1.0
    assert found["age", "not known"]["macro_auroc_low"] is None  # of one patient
    assert [age_band(age) for age in (17.9, 18, 64, 65, 79.5, 80, None, float("nan"))] == [
        "under 18", "18-39", "40-64", "65-79", "65-79", "80 and over", "not known", "not known"]  # fmt: skip

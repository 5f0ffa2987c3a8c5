"""Every source keeps the contract: listed lazily, prepared, loaded, with the same columns; nothing lost silently."""

import pickle
from pathlib import Path
from types import GeneratorType

import datasets
import numpy as np
import pytest
import test_cpsc2018
import test_physionet2021
from test_code15 import folder as code15_layout  # noqa: F401  (fixtures: each layout is written where it is tested)
from test_ecg_id import folder as ecg_id_layout  # noqa: F401
from test_files import folder as files_layout  # noqa: F401
from test_ludb import folder as ludb_layout  # noqa: F401
from test_mimic_iv_ecg import folder as mimic_iv_ecg_layout  # noqa: F401
from test_prepare import folder as ptb_xl_layout  # noqa: F401

from datasets_scripts import RecordReader
from datasets_scripts.loading import open_prepared
from datasets_scripts.preparation.prepare import Settings, prepare_dataset
from datasets_scripts.records import row_features
from datasets_scripts.sources import SOURCES, SPLITS, Entry, SourceFacts, check_options, find_source, split_of

OPTIONS = {
    "ptb_xl": {"sampling_rate": 100},
    "files": {"table": "table.csv"},
    "synthetic": {"num_records": 4, "sampling_rate": 100},
}
KEPT = {  # of how many
    "ptb_xl": (11, 14), "mimic_iv_ecg": (3, 4), "code15": (3, 4), "ecg_id": (5, 5), "ludb": (3, 3), "files": (2, 3),
    "physionet2021": (8, 9), "cpsc2018": (3, 4), "esi_csv": (2, 3), "synthetic": (12, 12),
}  # fmt: skip


@pytest.fixture
def physionet2021_layout(tmp_path):
    for place, name in test_physionet2021.OFFICIAL.items():
        test_physionet2021.write_record(tmp_path / "training" / place / "g1", name)
    test_physionet2021.write_record(tmp_path / "training" / "georgia" / "g1", "E00002")
    (tmp_path / "training" / "georgia" / "g1" / "E00002.mat").unlink()
    return tmp_path


@pytest.fixture
def cpsc2018_layout(tmp_path):
    for name in ("A0001", "A0002", "A0003"):
        test_cpsc2018.write_struct(tmp_path / "TrainingSet1", name, np.random.default_rng(1).normal(size=(12, 40)))
    rows = ["A0001,5,1,8", "A0002,1,,", "A0003,2,,", "A0004,3,,"]
    test_cpsc2018.write_reference(tmp_path, *rows)
    return tmp_path


@pytest.fixture
def esi_csv_layout(tmp_path):
    (tmp_path / "meta.csv").write_text("save_index,prompt\n0,ECG Findings: a.\n1,ECG Findings: b.\n2,lost\n")
    for index in range(2):
        np.save(tmp_path / f"ecg_{index}.npy", np.random.default_rng(index).normal(size=(37, 12)))
    return tmp_path


@pytest.fixture
def synthetic_layout():
    return None


@pytest.mark.parametrize("name", SOURCES)
def test_every_layout_prepares_and_loads(name, request, tmp_path_factory):
    data_dir = request.getfixturevalue(f"{name}_layout")
    text = "none" if name == "ecg_id" else "report_else_statements"
    settings = Settings(name, data_dir and str(data_dir), OPTIONS.get(name, {}), text)
    output = tmp_path_factory.mktemp("prepared") / name
    report = prepare_dataset(settings, output)
    splits = report.splits.values()
    assert (report.num_kept, sum(split.num_read for split in splits)) == KEPT[name]
    for split in splits:
        assert split.num_read == split.num_kept + len(split.rejected) + sum(split.filtered.values())
        assert all(rejection.reason and rejection.path for rejection in split.rejected)
    rows, _ = open_prepared(output, None)
    assert list(rows.features) == list(row_features()) and len(set(rows["record_id"])) == len(rows)
    for record in RecordReader(rows).records(range(len(rows))):
        assert record.signal.shape == (len(record.leads), record.num_samples) and record.text or text == "none"
        assert np.isfinite(record.signal).any() and 50 <= record.sampling_rate <= 1000
    for split, load in report.splits.items():
        if load.num_kept:
            again = datasets.load_dataset(str(output), split=split, cache_dir=str(output.parent / "cache"))
            assert again["record_id"] == open_prepared(output, split)[0]["record_id"]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_keeps_the_contract(name, request):
    source = find_source(name)
    data_dir = request.getfixturevalue(f"{name}_layout")
    options = OPTIONS.get(name, {})
    entries = source.list_entries(data_dir, **options)
    assert isinstance(entries, GeneratorType), "entries are listed lazily"
    entries = list(entries)
    assert entries and all(isinstance(entry, Entry) and entry.split in SPLITS for entry in entries)
    assert pickle.loads(pickle.dumps(entries)) == entries == list(source.list_entries(data_dir, **options))
    assert isinstance(source.FACTS, SourceFacts) and source.FACTS.title
    assert all(Path(path).is_file() for path in source.tables(data_dir, **options))
    with pytest.raises(ValueError, match=f"{name}: expected options among"):
        check_options(source, {"no_such_option": 1})


def test_splits_are_by_hash_and_never_change():
    assert [split_of(f"1000003{digit}") for digit in "2345"] == ["train", "validation", "train", "train"]
    shares = [sum(split_of(f"patient {i}") == split for i in range(20_000)) / 20_000 for split in SPLITS]
    assert shares == pytest.approx([0.90, 0.05, 0.05], abs=0.005)

"""A pushed data set is the prepared one: the same rows for everyone, all or nothing, and nothing of this machine."""

import json
import os
import subprocess
import sys
import textwrap

import datasets
import huggingface_hub.constants as hub_constants
import pyarrow.parquet as pq
import pytest
from hub_double import hub_of_this_process
from tiny_prepared import FACTS, numbered, tiny_record, write_prepared

from datasets_scripts.loading import open_prepared
from datasets_scripts.preparation import dataset_card, push
from datasets_scripts.preparation.hub_repository import is_repository, open_repository
from datasets_scripts.preparation.public_paths import without_private_paths
from datasets_scripts.preparation.push import push_dataset, write_parquet
from datasets_scripts.preparation.shards import Layout
from datasets_scripts.records import row_features

MIXED = {
    "train-00000": numbered(0, 5), "train-00001": numbered(5, 4, 9), "train-00002": [],
    "train-00003": [*numbered(9, 2), *numbered(11, 2, 6)], "validation-00000": [], "test-00000": numbered(13, 3, 9),
}  # fmt: skip
SAME = {"train-00000": numbered(0, 5), "train-00001": numbered(5, 4), "test-00000": numbered(9, 3)}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_of_this_process(monkeypatch, tmp_path / "hub_cache") as server:
        yield server


def push_quietly(folder, repository="someone/ecgs", **options):
    return push_dataset(folder, repository, token="hf_of_nobody", progress=False, **options)


def manifest_of(hub, repository="someone/ecgs"):
    return json.loads(hub.files(repository)["manifest.json"])


def rows_of(dataset):
    """Rows with every value that could differ, the NaN sentinel included."""
    return dataset.with_format(None)[:]


def run_elsewhere(code, hub, tmp_path):
    """JSON that code printed last in a new process, which knows the double as its Hub and has empty caches."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ----- the same rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shards", "num_values"), [(SAME, 21), (MIXED, -1)], ids=["one_length", "many_lengths"])
def test_everyone_loads_the_same_rows(hub, tmp_path, shards, num_values):
    folder = write_prepared(tmp_path / "prepared", shards)
    url = push_quietly(folder)
    assert url == f"{hub.url}/datasets/someone/ecgs/commit/{1:040x}" and len(hub.commits["someone/ecgs"]) == 2
    code = """
        import datasets, json
        from datasets_scripts.preparation.hub_repository import open_repository
        splits = datasets.load_dataset("someone/ecgs")
        rows = {split: dataset[:] for split, dataset in splits.items()}
        all_rows, report = open_repository("someone/ecgs", None)
        two, _ = open_repository("someone/ecgs", "train", limit=2)
        streamed = list(datasets.load_dataset("someone/ecgs", split="train", streaming=True))
        print(json.dumps([rows, all_rows["record_id"][:], two["record_id"][:], report.num_kept,
                          [row["record_id"] for row in streamed], splits["train"].features["signal"].length]))
    """
    rows, everyone, two, num_kept, streamed, length = run_elsewhere(code, hub, tmp_path)
    assert set(rows) == {name.rpartition("-")[0] for name, records in shards.items() if records}
    for split, loaded in rows.items():
        assert loaded == rows_of(open_prepared(folder, split)[0])
    expected = [record.record_id for records in shards.values() for record in records]
    assert everyone == expected and num_kept == len(expected) and two == ["0", "1"]
    assert streamed == rows["train"]["record_id"] and length == num_values


@pytest.mark.parametrize("layout", [Layout("int16", 21), Layout("int16", None), Layout("float32", 21)])
def test_the_local_folder_loads_as_it_is(tmp_path, layout):
    records = [tiny_record(number, plain=layout.dtype == "float32") for number in range(4)]
    shards = {"train-00000": records, "train-00001": [], "test-00000": records[:1]}
    folder = write_prepared(tmp_path / "prepared", shards, layout=layout)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 4, "test": 1}
    assert rows_of(loaded["train"]) == rows_of(open_prepared(folder, "train")[0])
    assert loaded["train"].features == row_features(layout.dtype, layout.num_values)


@pytest.mark.parametrize("layout", [Layout("int16", 21), Layout("int16", None), Layout("float32", 21)])
def test_parquet_keeps_rows_features_and_batches(tmp_path, monkeypatch, layout):
    monkeypatch.setattr("datasets_scripts.preparation.shards.ROWS_PER_BATCH", 3)
    records = [tiny_record(number, plain=layout.dtype == "float32") for number in range(7)]
    folder = write_prepared(tmp_path / "prepared", {"train-00000": records})
    paths = [tmp_path / "once.parquet", tmp_path / "again.parquet"]
    for path in paths:
        assert write_parquet(folder / "train-00000.arrow", path, layout) == [3, 3, 1]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    file = pq.ParquetFile(paths[0])
    assert file.num_row_groups == 3 and file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert datasets.Features.from_arrow_schema(file.schema_arrow) == row_features(layout.dtype, layout.num_values)
    assert file.read().to_pylist() == open_prepared(folder, "train")[0].with_format("arrow")[:].to_pylist()


# ----- all or nothing ------------------------------------------------------------------------------------------------


def test_one_shard_at_a_time_and_one_commit(hub, tmp_path, monkeypatch):
    folder = write_prepared(tmp_path / "prepared", SAME)
    on_disk = []
    upload = push._upload
    monkeypatch.setattr(push, "_upload", lambda api, name, path: on_disk.append([p.name for p in path.parent.iterdir()])
                        or upload(api, name, path))  # fmt: skip
    push_quietly(folder)
    names = ["train-00000.parquet", "train-00001.parquet", "test-00000.parquet"]
    assert on_disk == [[name] for name in names]
    assert set(hub.files("someone/ecgs")) == {*names, "README.md", "manifest.json", "report.json"}
    kinds = [asked.split("/")[-2] for asked in hub.asked if asked.endswith("/commit/main") or asked.startswith("PUT")]
    assert kinds == ["lfs", "lfs", "lfs", "commit"]
    for part in manifest_of(hub)["shards"]:
        assert part["sha256"] in hub.lfs and sum(part["row_groups"]) == part["num_rows"]


def test_an_interrupted_push_shows_nothing_and_does_not_send_twice(hub, tmp_path, monkeypatch):
    folder = write_prepared(tmp_path / "prepared", SAME)
    upload = push._upload

    def break_at_the_third(api, name, path):
        if path.name == "test-00000.parquet":
            hub.refuse = 403
        return upload(api, name, path)

    with monkeypatch.context() as patch, pytest.raises(PermissionError, match="got status 403"):
        patch.setattr(push, "_upload", break_at_the_third)
        push_quietly(folder)
    assert hub.files("someone/ecgs") == {} and len(hub.lfs) == 2
    hub.refuse = None
    hub.asked.clear()
    push_quietly(folder)
    assert sum(asked.startswith("PUT") for asked in hub.asked) == 1 and len(hub.files("someone/ecgs")) == 6


def test_a_later_push_leaves_no_shard_of_the_earlier_one(hub, tmp_path):
    push_quietly(write_prepared(tmp_path / "three", SAME))
    push_quietly(write_prepared(tmp_path / "one", {"train-00000": numbered(40, 2)}))
    parquet = [name for name in hub.files("someone/ecgs") if name.endswith(".parquet")]
    assert parquet == ["train-00000.parquet"] and len(hub.commits["someone/ecgs"]) == 3


def test_small_files_that_the_hub_keeps_in_git_travel_with_the_commit(hub, tmp_path):
    hub.lfs_from = 10**6
    push_quietly(write_prepared(tmp_path / "prepared", SAME))
    assert not hub.lfs and hub.files("someone/ecgs")["test-00000.parquet"].startswith(b"PAR1")


# ----- what must not go ----------------------------------------------------------------------------------------------


def test_credentialed_columns_stay_unless_allowed_and_private(hub, tmp_path):
    settings = {"name": "tiny", "data_dir": "d", "options": {"patients": "p.csv"}, "text": "report"}
    folder = write_prepared(tmp_path / "prepared", SAME, credentialed_columns=["age", "sex", "text"], settings=settings)
    with pytest.raises(ValueError, match=r"age, sex, text: .* \(option patients\); .*without that option.*signed"):
        push_quietly(folder)
    with pytest.raises(ValueError, match="expected a private repository, got private=False"):
        push_quietly(folder, private=False, allow_credentialed=True)
    assert not hub.asked
    push_quietly(write_prepared(tmp_path / "open", SAME), "someone/public", private=False)
    with pytest.raises(ValueError, match="expected a private repository, got one that is there already and public"):
        push_quietly(folder, "someone/public", allow_credentialed=True)
    push_quietly(folder, allow_credentialed=True)
    assert hub.private == {"someone/public": False, "someone/ecgs": True}
    card = hub.files("someone/ecgs")["README.md"].decode()
    assert "**Under a data use agreement:** `age`, `sex`, `text`." in card


def test_unfinished_changed_or_unlicensed_folders_are_refused(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="prepare it first"):
        push_quietly(tmp_path)
    folder = write_prepared(tmp_path / "unlicensed", SAME, facts=FACTS | {"license": ""})
    with pytest.raises(ValueError, match="expected a licence, got none: pass license="):
        push_quietly(folder)
    with pytest.raises(ValueError, match="expected at least one record"):
        push_quietly(write_prepared(tmp_path / "empty", {"train-00000": []}))
    assert not hub.asked
    push_quietly(folder, license="cc0-1.0")
    assert "license: cc0-1.0" in hub.files("someone/ecgs")["README.md"].decode()
    (folder / "test-00000.arrow").write_bytes((folder / "train-00000.arrow").read_bytes())
    with pytest.raises(ValueError, match="expected the shard that the manifest describes .* got another"):
        push_quietly(folder, license="cc0-1.0")
    mixed = {"train-00000": numbered(0, 2), "train-00001": [tiny_record(3, plain=True)]}
    with pytest.raises(ValueError, match="expected one dtype of signals, got float32, int16"):
        push_quietly(write_prepared(tmp_path / "mixed", mixed))


def test_no_path_of_this_machine_goes_there(hub, tmp_path):
    private = str(tmp_path / "my data" / "ptbxl")
    settings = {"name": "tiny", "data_dir": private, "options": {"patients": f"{tmp_path}/mimic/patients.csv"},
                "text": "report"}  # fmt: skip
    folder = write_prepared(tmp_path / "prepared", SAME, settings=settings)
    report = json.loads((folder / "report.json").read_text())
    report["splits"]["train"]["rejected"] = [
        {"record_id": "9", "path": f"{private}/r/9.hea", "reason": f"[Errno 2] No such file: '{private}/r/9.dat'"},
        {"record_id": "10", "path": "r/10.hea", "reason": f"{tmp_path}/mimic/patients.csv: no row, see ~/x/notes.txt"},
    ]
    (folder / "report.json").write_text(json.dumps(report))
    push_quietly(folder)
    files = hub.files("someone/ecgs")
    for name in ("README.md", "manifest.json", "report.json"):
        assert str(tmp_path).encode() not in files[name] and b"my data" not in files[name], name
    assert "data_dir" not in manifest_of(hub)["settings"]
    assert manifest_of(hub)["settings"]["options"] == {"patients": "patients.csv"}
    first, second = json.loads(files["report.json"])["splits"]["train"]["rejected"]
    assert first["path"] == "r/9.hea" and first["reason"] == "[Errno 2] No such file: 'r/9.dat'"
    assert second["reason"] == "patients.csv: no row, see notes.txt"
    assert manifest_of(hub)["facts"]["homepage"] == FACTS["homepage"]


def test_ordinary_texts_are_no_paths():
    said = ["500 Hz and/or 100 Hz", "60/min", "train/5", "see https://example.org/a/b", "records100/00000/1_lr",
            "1 / 2", "I/II: -12 uV", "C: 3", None, 5, True]  # fmt: skip
    assert without_private_paths(said, "data/ptbxl") == said
    assert without_private_paths(r"C:\data\p.csv") == without_private_paths("../x/p.csv") == "p.csv"
    assert without_private_paths("file:///home/somebody/p.csv: too short") == "p.csv: too short"


# ----- errors and names ----------------------------------------------------------------------------------------------


def test_errors_say_what_to_do(hub, tmp_path, monkeypatch):
    folder = write_prepared(tmp_path / "prepared", SAME)
    with pytest.raises(FileNotFoundError, match="someone/nothing: expected it at .*python -m datasets_scripts push"):
        open_repository("someone/nothing")
    push_quietly(folder)
    with pytest.raises(ValueError, match=r"expected at least one record in the split 'validation'"):
        open_repository("someone/ecgs", "validation")
    hub.refuse = 401
    with pytest.raises(PermissionError, match=r"got status 401 .* run `hf auth login`"):
        push_quietly(folder)
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="expected to reach http://127.0.0.1:9, got .* not sent twice"):
        push_quietly(folder)


def test_names_of_repositories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "ptb_xl").mkdir(parents=True)
    assert is_repository("someone/ecg-data.1") and is_repository("data/other")
    for name in ("data/ptb_xl", "ptb_xl", "./data/x", "../x", "/data/x", "a/b/c", "~/x", "", tmp_path):
        assert not is_repository(name)


def test_the_card_tells_sizes(tmp_path):
    sizes = [dataset_card._size_category(count) for count in (999, 1000, 21799, 800035, 10**6)]
    assert sizes == ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M"]

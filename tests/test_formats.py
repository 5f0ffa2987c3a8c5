"""Which reader a file gets, and what every reader must hold to: hostile files, contradictions, unknown kinds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets_scripts.readers.formats import format_of, read_file

ROOT = Path(__file__).parents[1]
FOLDER = ROOT.parent / "shared" / "data" / "formats"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 600


def write_wfdb(folder, name="rec"):
    (folder / f"{name}.hea").write_text(f"{name} 1 250 4\n{name}.dat 16 200/mV 16 0 0 0 0 II\n")
    (folder / f"{name}.dat").write_bytes(np.array([200, -200, 0, 100], "<i2").tobytes())


@pytest.mark.parametrize("name", ["rec", "rec.hea", "rec.dat"])
def test_wfdb(tmp_path, name):
    write_wfdb(tmp_path)
    assert format_of(tmp_path / name) == "WFDB"
    assert read_file(tmp_path / name).signal.tolist() == [[1.0, -1.0, 0.0, 0.5]]


@pytest.mark.parametrize(
    ("name", "begin", "kind"),
    [
        ("x.bin", b"\0" * 128 + b"DICM", "DICOM"),
        ("x.dcm", b"DICM", "DICOM"),
        ("x.txt", b"\x93NUMPY\x01", "npy"),
        ("x", b"0" + b" " * 183 + b"256     ", "EDF"),
        ("x.dat", b" <?xml version='1.0'?>", "WFDB"),
        ("x.ecg", b"\xef\xbb\xbf <?xml version='1.0'?>", "XML"),
        ("x.ecg", "\ufeff<RestingECG/>".encode("utf-16-le"), "XML"),
        ("x.XML", b"garbage", "XML"),
        ("x.csv", b"<I>,II\n", "CSV"),
        ("x.tsv", b"I\tII\n", "CSV"),
        ("x.scp", b"", "SCP-ECG"),
        ("x", b"\0" * 16 + b"SCPECG", "SCP-ECG"),
    ],
)
def test_content_comes_before_suffix(tmp_path, name, begin, kind):
    (tmp_path / name).write_bytes(begin)
    assert format_of(tmp_path / name) == kind


@pytest.mark.parametrize(
    ("name", "begin", "reason"),
    [
        ("x.png", PNG, r"none of them \(\.png\)"),
        ("x", b"", "none of them"),
        ("x.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("x.gz", b"\x1f\x8b\x08", "gzip"),
        ("x.zip", b"PK\x03\x04", "zip"),
        ("x.pdf", b"%PDF-1.7", "picture"),
        ("x.scp", b"\0" * 16 + b"SCPECG", r"convert it to DICOM, HL7 aECG XML or WFDB"),
        ("x.xml", b"<restingecgdata/>", "got XML with the root 'restingecgdata'"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, name, begin, reason):
    (tmp_path / name).write_bytes(begin)
    with pytest.raises(ValueError, match=reason) as caught:
        read_file(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.dcm: no such file"):
        read_file(tmp_path / "x.dcm")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "x.hea")
    with pytest.raises(ValueError, match="'::'"):
        read_file("zip://a::http://localhost/x.csv")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sampling_rate": 500}, "250 Hz, but sampling_rate=500"),
        ({"leads": ("V1",)}, r"\['II'\], but leads=\['V1'\]"),
        ({"unit": "uV"}, "WFDB says the unit of every lead itself, but unit='uV'"),
        ({"patient_id": "all"}, "drop, keep, hash"),
        ({"patient_id": "hash"}, "salt"),
    ],
)
def test_contradictions_are_told(tmp_path, options, reason):
    write_wfdb(tmp_path)
    with pytest.raises(ValueError, match=reason):
        read_file(tmp_path / "rec", **options)


def test_agreement_is_no_contradiction(tmp_path):
    write_wfdb(tmp_path)
    assert read_file(tmp_path / "rec", sampling_rate=250, leads=["II"], patient_id="hash", salt="s").num_leads == 1


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the folder ../shared with published files")
def test_every_published_file_is_read_or_refused_with_its_reason():
    reasons = {"test_ecg.dcm": "Hemodynamic", "Example.scp": "SCP-ECG is not read"}
    for path in sorted(FOLDER.glob("*/*")):
        if path.suffix in (".xml", ".dcm", ".hea", ".scp") and path.name not in reasons:
            assert read_file(path).num_samples > 0, path
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=reason):
            read_file(next(FOLDER.glob(f"*/{name}")))


# ---------------------------------------------------------------------------------------------------------------------
# hostile files: refused within a second and 200 MB, in a process of its own whose memory is measured

MEASURE = """
import json, resource, sys, time
from datasets_scripts.readers.formats import read_file
from datasets_scripts.readers import array_records, dicom_records, edf_records
import defusedxml.ElementTree, pandas, pydicom, pyedflib
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for name in sys.argv[1:]:
    before, begin = peak(), time.perf_counter()
    try:
        read_file(name, sampling_rate=500, leads=("I", "II"))
        told = "read"
    except (ValueError, OSError) as error:
        told = str(error)
    print(json.dumps([name, told, time.perf_counter() - begin, peak() - before]))
"""


def hostile_files():
    """Names, contents and reasons."""
    bomb = "<!DOCTYPE b [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{n + 1} '{f'&a{n};' * 10}'>" for n in range(9))
    quadratic = f"<!DOCTYPE b [<!ENTITY a '{'x' * 100_000}'>]><b>{'&a;' * 50_000}</b>"
    outside = "<!DOCTYPE b [<!ENTITY a SYSTEM 'file:///etc/hostname'>]><RestingECG>&a;</RestingECG>"
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 2), }".ljust(117) + "\n"
    npy = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode()
    pickled = npy.replace(b"<f4", b"|O ").replace(b"1000000000000", b"2            ") + b"\x80\x04cos\nsystem\n."
    meta = b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"
    dicom = b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0" + len(meta).to_bytes(4, "little") + meta
    sop = b"\x08\0\x16\0UI\x1e\x001.2.840.10008.5.1.4.1.1.9.1.1\0"
    endless = dicom + sop + b"\0\x54\0\x01SQ\0\0\xfe\xff\xff\xff" + b"\xfe\xff\0\xe0\xfe\xff\xff\xff" * 3
    nested = dicom + sop + (b"\0\x54\0\x01SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff") * 5000
    edf = b"0".ljust(184) + b"512".ljust(8) + b" " * 44 + b"99999999" + b"1".ljust(8) + b"1".ljust(4)
    signal = b"ECG I".ljust(96) + b"uV".ljust(8) + b"-5".ljust(8) + b"5".ljust(8) + b"-5".ljust(8) + b"5".ljust(8)
    muse = "<RestingECG><Waveform><WaveformType>Rhythm</WaveformType>" + "<LeadData/>" * 30_000
    return {
        "bomb.xml": (bomb + "]><b>&a9;</b>", "declares entities"),
        "quadratic.xml": (quadratic, "declares entities"),
        "outside.xml": (outside, "declares entities"),
        "deep.xml": ("<a>" * 500_000, "levels"),
        "wide.xml": ("<a>" + "<b/>" * 250_000 + "</a>", "elements"),
        "leads.xml": (muse + "</Waveform></RestingECG>", "leads"),
        "lying.npy": (npy, "cannot be read safely"),
        "pickled.npy": (pickled, "pickles"),
        "endless.dcm": (endless, "cannot be read as DICOM|expected"),
        "nested.dcm": (nested, "cannot be read as DICOM|expected"),
        "lying.edf": (edf + signal + b" " * 80 + b"99999999" + b" " * 32, "number of data records"),
        "wide.csv": ("," * 10_000_000, "lines of at most"),
        "long.csv": ("I,II\n" + "7" * 10_000_000, "rows of 2 numbers|lines of at most|without a unit|finite|no mV"),
        "cut.dcm": (dicom[:140], "cannot be read as DICOM"),
    }


def test_hostile_files_are_refused_quickly_and_cheaply(tmp_path):
    for module in ("pydicom", "pyedflib", "defusedxml"):
        pytest.importorskip(module)
    files = hostile_files()
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", MEASURE, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        path, told, seconds, megabytes = json.loads(line)
        name = Path(path).name
        assert seconds < 1, (name, seconds)
        assert megabytes < 200, (name, megabytes)
        assert path in told and "\n" not in told and len(told) < 600, told
        assert any(part in told for part in files[name][1].split("|")), (name, told)
    assert len(done.stdout.splitlines()) == len(files)
    assert done.stderr == ""

"""Headers are read by the grammar of header(5), or refused before anything that they name is opened."""

import os
import sys
import time

import numpy as np
import pytest
from tiny_wfdb import write_record

from datasets_scripts.readers.wfdb_header import check_own_file, parse_header
from datasets_scripts.readers.wfdb_records import read_wfdb_record

SIGNAL = "rec.dat 16 200(5)/mV 16 0 0 0 0"


def parse(folder, text):
    path = folder / "rec.hea"
    path.write_bytes(text.encode("latin-1"))
    return parse_header(path)


def test_every_field_of_a_signal_line(tmp_path):
    header = parse(
        tmp_path, "rec 1 250/360(10) 37 12:00:00 01/02/2003\nrec.dat 212x4:3+24 -2.5e2(-7)/uV 12 1 -9 -8 7 lead  II\n"
    )
    assert (header.sampling_rate, header.num_leads, header.num_samples) == (250.0, 1, 37)
    line = header.signals[0]
    assert (line.file_name, line.fmt, line.samples_per_frame, line.skew, line.byte_offset) == (
        "rec.dat",
        "212",
        4,
        3,
        24,
    )
    assert (line.gain, line.baseline, line.unit, line.name) == (-250.0, -7, "uV", "lead  II")
    assert (line.initial_value, line.checksum) == (-9, -8)


@pytest.mark.parametrize(
    ("rest", "gain", "baseline", "unit", "name", "initial_value", "checksum"),
    [
        ("", 200.0, 0, None, "signal 1", None, None),
        (" 0", 200.0, 0, None, "signal 1", None, None),  # header(5): zero means the default gain
        (" 1000/mV", 1000.0, 0, "mV", "signal 1", None, None),
        (" 1000 12 5", 1000.0, 5, None, "signal 1", None, None),  # the baseline is the ADC zero
        (" 1000(7) 12 5", 1000.0, 7, None, "signal 1", None, None),
        (" 1000 12 5 -3 I", 1000.0, 5, None, "I", -3, None),
        (" 1000 12 5 -3 65535 V1", 1000.0, 5, None, "V1", -3, 65535),
        (" 1000 12 5 -3 -1 0 12 lead", 1000.0, 5, None, "12 lead", -3, -1),
        (" 1000 12a 5", 1000.0, 0, None, "12a 5", None, None),
        (" .5/mV", 0.5, 0, "mV", "signal 1", None, None),
        (" 1.052e+04/mV 16 0 9127 -301 0 V", 10520.0, 0, "mV", "V", 9127, -301),
    ],
)
def test_what_follows_the_format_is_optional(tmp_path, rest, gain, baseline, unit, name, initial_value, checksum):
    line = parse(tmp_path, f"rec 1 250 37\nrec.dat 16{rest}\n").signals[0]
    assert (line.gain, line.baseline, line.unit, line.name) == (gain, baseline, unit, name)
    assert (line.initial_value, line.checksum) == (initial_value, checksum)


def test_comments_line_ends_and_encodings(tmp_path):
    header = parse(tmp_path, "# a\r\nrec 1 250 37\r\n\r\n#b\r\nrec.dat 16 200/\xb5V 16 0 0 0 0 I\r\n#Age: 7\n")
    assert header.comments == ("a", "b", "Age: 7") and header.signals[0].unit == "\N{MICRO SIGN}V"
    (tmp_path / "utf8.hea").write_text("rec 1 250 37\nrec.dat 16 200/\N{MICRO SIGN}V\n", encoding="utf-8")
    assert parse_header(tmp_path / "utf8.hea").signals[0].unit == "\N{MICRO SIGN}V"


# ---------------------------------------------------------------- what is refused, and when


@pytest.fixture
def opened():
    """Every file that is opened while the test runs (an audit hook cannot be removed, so it looks at this list)."""
    seen = []
    active = [True]

    def hook(event, arguments):
        if active[0] and event in ("open", "socket.connect", "socket.getaddrinfo"):
            seen.append(str(arguments[0]))

    sys.addaudithook(hook)
    yield seen
    active[0] = False


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("rec 1 250 37\n../outside.dat 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\n{outside} 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\nhttp://127.0.0.1:9/x.dat 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\nsub/x.dat 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\n..\\x.dat 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\n.. 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\nlink.dat 16 200 16 0 0 0 0 I\n", "link that leads outside"),
        ("rec 1 250 37\nloop.dat 16 200 16 0 0 0 0 I\n", "symbolic links"),
        ("rec 1 250 37\ndangling.dat 16 200 16 0 0 0 0 I\n", "no such file"),
        ("rec 1 250 37\npipe 16 200 16 0 0 0 0 I\n", "plain file"),
        ("rec 1 250 37\nfolder 16 200 16 0 0 0 0 I\n", "plain file"),
        ("rec 1 250 37\ngone.dat 16 200 16 0 0 0 0 I\n", "no such file"),
        ("rec 1 250 37\n" + "n" * 300 + " 16 200 16 0 0 0 0 I\n", "File name too long"),
        ("rec/1 1 250 37\n../other 37\n", "plain name"),
        (f"rec 1 250 1000000000000\n{SIGNAL} I\n", "at most"),
        (f"rec 1 250 99999999999999999999999\n{SIGNAL} I\n", "number of samples"),
        (f"rec 10000 250 37\n{SIGNAL} I\n", "1 to 256 leads"),
        (f"rec 0 250 37\n{SIGNAL} I\n", "1 to 256 leads"),
        (f"rec 1 250 38\n{SIGNAL} I\n", "38 samples per lead.*holds only 37.*cut short"),
        (f"rec 2 250 37\n{SIGNAL} I\n", "2 signal lines"),
        (f"rec 1 -250 37\n{SIGNAL} I\n", "positive sampling rate"),
        (f"rec 1 0 37\n{SIGNAL} I\n", "positive sampling rate"),
        (f"rec 1 nan 37\n{SIGNAL} I\n", "positive sampling rate"),
        (f"rec 1\n{SIGNAL} I\n", "positive sampling rate.*none"),
        ("rec 1 250 37\nrec.dat 16x100000000 200 16 0 0 0 0 I\n", "at most"),
        ("rec 1 250 37\nrec.dat 16x0 200 16 0 0 0 0 I\n", "signal format"),
        ("rec 1 250 37\nrec.dat 16:1000000000000 200 16 0 0 0 0 I\n", "skew"),
        ("rec 1 250 37\nrec.dat 16+100 200 16 0 0 0 0 I\n", "holds only 0"),
        ("rec 1 250 37\nrec.dat 16+999999999999999999 200 16 0 0 0 0 I\n", "holds only 0"),
        ("rec 1 250 37\nrec.dat 99 200 16 0 0 0 0 I\n", "signal formats"),
        ("rec 1 250 37\nrec.dat sixteen 200 16 0 0 0 0 I\n", "signal format"),
        ("rec 1 250 37\nrec.dat\n", "signal format"),
        ("rec 1 250 37\nrec.dat 16 200/mV -7 3 I\n", "ADC resolution"),
        ("rec 1 250 37\nrec.dat 16 nan/mV 16 0 0 0 0 I\n", "gain"),
        ("rec 1 250 37\nrec.dat 16 1e999/mV 16 0 0 0 0 I\n", "gain between"),
        ("rec 1 250 37\nrec.dat 16 1e-40/mV 16 0 0 0 0 I\n", "gain between"),
        ("rec 1 250 37\nrec.dat 16 200 16 9999999999999999999 0 0 0 I\n", "at most 18 digits"),
        ("rec 1 250 37\nrec.dat 16 " + "1" * 900_000 + "x\n", "gain"),
        ("rec 1 " + "1" * 900_000 + "x 37\n", "sampling rate"),
        ("rec 1 250 37\n" + "n" * 900_000 + "!\n", "plain name"),
        (f"rec 1 250 37\n{SIGNAL} {'I' * 201}\n", "at most 200 printable"),
        (f"rec 1 250 37\n{SIGNAL} \x1b[2J\n", "printable characters.*x1b"),
        ("rec 1 250 37\nrec.dat 16 200/" + "V" * 41 + "\n", "gain"),
        ("#\n" * 400_000, "record line"),
        ("#" + "age " * 250_000 + f"\nrec 1 250 38\n{SIGNAL} I\n", "cut short"),
        ("x" * 1_100_000, "at most 1048576 bytes"),
        ("\x00\x01", "first line"),
        ("# only a comment\n", "record line"),
        ("", "record line"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_hostile_headers_are_refused_fast_and_open_nothing(tmp_path, opened, header, message):
    folder = tmp_path / "records"
    (folder / "folder").mkdir(parents=True)
    outside = tmp_path / "outside.dat"
    outside.write_bytes(b"\0" * 1000)
    (folder / "rec.dat").write_bytes(np.zeros(37, "<i2").tobytes())
    for name, target in (("link.dat", outside), ("loop.dat", "loop.dat"), ("dangling.dat", "gone")):
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe")
    (folder / "rec.hea").write_text(header.replace("{outside}", str(outside)))
    opened.clear()
    start = time.monotonic()
    with pytest.raises((ValueError, OSError), match=message) as caught:
        read_wfdb_record(folder / "rec")
    assert time.monotonic() - start < 1
    assert [path for path in opened if str(tmp_path) in path] == [str(folder / "rec.hea")]
    assert not [path for path in opened if "127.0.0.1" in path]
    assert "\n" not in str(caught.value) and "rec" in str(caught.value) and len(str(caught.value)) < 700


def test_comments_of_a_megabyte_are_read_fast(tmp_path):
    path = write_record(tmp_path)
    comment = "#" + "age " * 100_000 + "\n" + "#sex\n" * 50_000 + "# <age>: 81  <sex>: F\n"
    path.write_text(path.read_text() + comment)
    start = time.monotonic()
    record = read_wfdb_record(path)
    assert (record.age, record.sex) == (81.0, "female") and time.monotonic() - start < 1


def test_a_link_inside_its_folder_is_followed_and_a_linked_header_is_not(tmp_path):
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    folder.mkdir(), elsewhere.mkdir()
    path = write_record(folder)
    (folder / "rec.dat").rename(folder / "real.dat")
    (folder / "rec.dat").symlink_to("real.dat")
    assert read_wfdb_record(path).num_samples == 37
    assert check_own_file(folder / "rec.dat") == 37 * 3 * 2
    (elsewhere / "rec.hea").symlink_to(path)
    with pytest.raises(ValueError, match="link that leads outside"):
        read_wfdb_record(elsewhere / "rec")
    (tmp_path / "c").symlink_to(folder)  # the folder itself may be a link: the user gave it
    assert read_wfdb_record(tmp_path / "c" / "rec").num_samples == 37
    with pytest.raises(FileNotFoundError, match="no such file"):
        check_own_file(folder / "rec.dat" / "x")

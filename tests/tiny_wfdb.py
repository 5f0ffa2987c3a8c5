"""Small WFDB records for tests, written byte by byte from header(5) and signal(5), or by the `wfdb` package."""

import struct

import numpy as np

LEADS = ("I", "II", "V5")


def random_integers(num_samples=37, num_leads=3, low=-900, high=900, seed=0):
    """`(samples, leads)` integers."""
    return np.random.default_rng(seed).integers(low, high, size=(num_samples, num_leads))


def checksum(samples):
    """The sum modulo 65536 with sign, as `wrsamp` of the WFDB library writes it."""
    return (int(np.sum(samples, dtype=np.int64)) + 2**15) % 2**16 - 2**15


def signal_bytes(integers, fmt="16"):
    """The bytes of `(samples, leads)` integers in format 16 or 212."""
    flat = np.asarray(integers).reshape(-1)
    if fmt == "16":
        return flat.astype("<i2").tobytes()
    raw = bytearray()
    for start in range(0, len(flat), 2):
        first, *second = (int(value) & 0xFFF for value in flat[start : start + 2])
        raw += bytes([first & 0xFF, (first >> 8) | ((second[0] >> 8) << 4 if second else 0)])
        raw += bytes([second[0] & 0xFF]) if second else b""
    return bytes(raw)


def matlab_header(num_leads, num_samples, number=30, imaginary=0, name=b"val\0"):
    """The 20 bytes and the name that come before the samples of a MATLAB v4 file."""
    return struct.pack("<5i", number, num_leads, num_samples, imaginary, len(name)) + name


def write_record(
    folder, name="rec", integers=None, fmt="16", leads=LEADS, unit="/mV", rate=250, before=b"", comments=""
):
    """Write `name.hea` and its signals file, gain 200 and baseline 5; returns the header's path.

    `before` are the bytes in front of the samples; with those of MATLAB the file is called `.mat`.
    """
    integers = random_integers(num_leads=len(leads)) if integers is None else np.asarray(integers)
    file_name = f"{name}.mat" if before[:1] == b"\x1e" else f"{name}.dat"
    (folder / file_name).write_bytes(before + signal_bytes(integers, fmt))
    layout = f"{fmt}+{len(before)}" if before else fmt
    lines = [f"{name} {len(leads)} {rate} {len(integers)}"]
    for lead, samples in zip(leads, integers.T, strict=True):
        lines.append(f"{file_name} {layout} 200(5){unit} 16 0 {samples[0]} {checksum(samples)} 0 {lead}")
    path = folder / f"{name}.hea"
    path.write_text("\n".join(lines) + "\n" + comments)
    return path


def change_header(path, old, new):
    """Replace text in a header that must have it."""
    text = path.read_text()
    assert old in text, f"{old!r} is not in {text!r}"
    path.write_text(text.replace(old, new))
    return path

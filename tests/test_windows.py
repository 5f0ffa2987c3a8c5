"""Windows of a long recording: where they begin, and that nothing is copied."""

import numpy as np
import pytest

from modeling_esi.recordings import Recording
from modeling_esi.windows import cut_windows, window_starts


@pytest.mark.parametrize(
    ("num_samples", "step", "starts"),
    [
        (7, 10, [0]),
        (10, 10, [0]),
        (12, 10, [0]),  # a rest of 2, shorter than 3
        (13, 10, [0, 3]),
        (30, 10, [0, 10, 20]),
        (33, 10, [0, 10, 20, 23]),
        (22, 5, [0, 5, 10]),
        (23, 5, [0, 5, 10, 13]),
        (23, 0, list(range(14))),
    ],
)
def test_where_windows_begin(num_samples, step, starts):
    assert window_starts(num_samples, length=10, step=step, shortest_rest=3) == starts


def test_windows_are_views_of_the_recording_and_cover_it():
    recording = Recording(np.arange(66, dtype=np.int16).reshape(2, 33), 10.0, ("I", "II"), np.ones(2), np.zeros(2))
    windows = list(cut_windows(recording, duration=1.0, shortest_rest=0.2))
    assert [(window.start, window.end) for window in windows] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (2.3, 3.3)]
    assert all(np.shares_memory(window.record["digital"], recording.signal) for window in windows)
    assert windows[3].record["digital"][0].tolist() == list(range(23, 33))
    assert len(list(cut_windows(recording, 1.0, overlap=0.5, shortest_rest=0.2))) == 6
    with pytest.raises(ValueError, match="overlap: expected a share of the window from 0 to below 1, got 1"):
        list(cut_windows(recording, 1.0, overlap=1))

"""The demo as README starts it: what it learns on held-out synthetic patients, beside what random weights know."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_learns_and_says_so(tmp_path):
    launch = Path(sys.executable).with_name("accelerate")
    result = subprocess.run(
        [str(launch), "launch", str(ROOT / "train_accelerate.py")], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    results = json.loads((tmp_path / "esi-ecg" / "results.json").read_text())
    trained, floor = results["trained"], results["random_weights"]
    areas = {name: value for name, value in trained.items() if name.startswith("test/auroc/")}
    assert len(areas) >= 16
    assert trained["test/macro_auroc"] >= 0.90
    assert min(areas.values()) >= 0.75, areas
    assert trained["test/contrastive_excess"] <= trained["test/ln_batch"] / 2
    assert floor["test/macro_auroc"] < 0.75 and floor["test/contrastive_excess"] > trained["test/ln_batch"] / 2
    assert result.stdout.count("generated:") == 3

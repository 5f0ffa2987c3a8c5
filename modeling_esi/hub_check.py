"""Is a model folder what it says: weights, hashes, licence, results; and does it load in a clean interpreter."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from huggingface_hub import EvalResult, ModelCard
from safetensors import SafetensorError, safe_open

from .card_results import eval_results, read_results, results_files
from .model_card import CARD_NAME, check_license, hashes_in, weight_hashes

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
INDEX = "model.safetensors.index.json"
#: Of the environment, for the other interpreter: where programs and libraries lie, no tokens.
_KEPT_VARIABLES = ("PATH", "HOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "USERPROFILE", "TMPDIR", "TEMP", "OMP_NUM_THREADS")
_PICKLE_STARTS = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
_PACKAGE = Path(__file__).parent
_SAME = 1e-9  # relative: both come from the same JSON number


class Finding(NamedTuple):
    """One thing looked at: `verdict` is "ok", "note" (a reader should know) or "fail"."""

    what: str
    verdict: str
    detail: str


def check_folder(
    folder: str | os.PathLike[str], *, trust_remote_code: bool = False, timeout: float = 600.0
) -> list[Finding]:
    """Look at a model folder as a stranger would.

    Its files: no pickles, weights whole, finite and as hashed in the card, a licence, the card's figures equal to those
    of the results files. Then it is loaded in an interpreter without this package, offline and with an empty cache,
    and embeds a made-up record. That runs the folder's code: without `trust_remote_code` only where it is, byte for
    byte, the code of this package.

    Args:
        folder: a saved model.
        trust_remote_code: run whatever code is there.
        timeout: of the load, in seconds.

    Returns:
        What was found, in the order in which it was looked at.

    Raises:
        ValueError: for a folder without `config.json`.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"folder {folder}: expected a saved model, got no config.json in it.")
    findings = [look(folder) for look in _LOOKS]
    if any(finding.verdict == "fail" for finding in findings if finding.what in ("pickles", "weights")):
        return [*findings, Finding("load", "note", "not tried, for the reasons above")]
    if (strange := _strange_code(folder)) and not trust_remote_code:
        detail = f"not tried: it runs {', '.join(strange)}, not this package's code; --trust_remote_code allows that"
        return [*findings, Finding("load", "note", detail)]
    return [*findings, _load(folder, timeout)]


def refuse_untrue(folder: Path) -> None:
    """Raise ValueError for a folder that must not be pushed: with pickles, or with the card of other weights."""
    for look in (_pickles, _hashes):
        finding = look(folder)
        if finding.verdict == "fail":
            raise ValueError(f"folder {folder}: {finding.what}: {finding.detail}")


def told(findings: Sequence[Finding]) -> str:
    """Findings as lines."""
    wide = max(len(finding.what) for finding in findings)
    return "\n".join(f"{finding.verdict:4}  {finding.what:{wide}}  {finding.detail}" for finding in findings)


def looks_like_pickle(name: str) -> bool:
    """Whether files of this name are read by unpickling, which can run code."""
    return Path(name).suffix.lower() in PICKLE_SUFFIXES


# ----- files ---------------------------------------------------------------------------------------------------------


def _pickles(folder: Path) -> Finding:
    found = [path.name for path in sorted(folder.iterdir()) if _is_pickle(path)]
    if found:
        return Finding("pickles", "fail", f"{', '.join(found)}: can run code when loaded: delete, or convert")
    return Finding("pickles", "ok", "none")


def _is_pickle(path: Path) -> bool:
    """By name, or by content: a pickle of protocol 2 or later, or the archive of torch.save."""
    if not path.is_file() or path.suffix == ".safetensors":  # these begin with a length, which may be any bytes
        return False
    with path.open("rb") as file:
        start = file.read(2)
    if looks_like_pickle(path.name) or start in _PICKLE_STARTS:
        return True
    return zipfile.is_zipfile(path) and any(map(looks_like_pickle, zipfile.ZipFile(path).namelist()))


def _weights(folder: Path) -> Finding:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return Finding("weights", "fail", "expected *.safetensors, got none")
    try:
        missing = sorted(_indexed(folder) - {path.name for path in files})
        extra = sorted({path.name for path in files} - _indexed(folder)) if (folder / INDEX).is_file() else []
        num_tensors, strange = _not_finite(files)
    except (SafetensorError, ValueError, KeyError) as error:
        return Finding("weights", "fail", f"cannot be read: {error}")
    if missing:
        return Finding("weights", "fail", f"expected {', '.join(missing)} of {INDEX} too: save the model anew")
    if extra:
        return Finding("weights", "fail", f"{', '.join(extra)}: not in {INDEX}, of another model: delete what is old")
    if strange:
        return Finding("weights", "fail", f"NaN or infinite numbers in {', '.join(strange[:5])}: broken")
    return Finding("weights", "ok", f"{num_tensors:,} tensors in {len(files)} file(s), all finite")


def _indexed(folder: Path) -> set[str]:
    path = folder / INDEX
    return set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()) if path.is_file() else set()


def _not_finite(files: Sequence[Path]) -> tuple[int, list[str]]:
    """How many tensors there are, and the names of those that hold a number that is none."""
    num_tensors, strange = 0, []
    for path in files:
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                num_tensors += 1
                if not torch.isfinite(tensors.get_tensor(name)).all():
                    strange.append(name)
    return num_tensors, strange


def _hashes(folder: Path) -> Finding:
    said = hashes_in(_card_text(folder))
    if not said:
        return Finding("hashes", "note", "the card names none: which weights it describes cannot be proved")
    if said != weight_hashes(folder):
        again = "`python -m modeling_esi.hub card FOLDER --license ...` or write_model_card"
        return Finding("hashes", "fail", f"the card describes other weights: write it anew, with {again}")
    return Finding("hashes", "ok", "the weights are those that the card describes")


def _license(folder: Path) -> Finding:
    try:
        license = check_license(_card_data(folder).get("license", ""))
    except ValueError as error:
        return Finding("licence", "fail", str(error))
    if license == "other":
        return Finding("licence", "note", "other: which one is not stated")
    return Finding("licence", "ok", license)


def _card_text(folder: Path) -> str:
    path = folder / CARD_NAME
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _card_data(folder: Path) -> dict[str, Any]:
    if not _card_text(folder):
        return {}
    try:
        return ModelCard.load(folder / CARD_NAME).data.to_dict()
    except yaml.YAMLError as error:
        raise ValueError(f"{CARD_NAME}: expected metadata in YAML, got {error}") from error


# ----- results -------------------------------------------------------------------------------------------------------


def stale_results(folder: Path) -> list[Path]:
    """The results files that say they are of other weights."""
    hashes = weight_hashes(folder)
    return [path for path in results_files(folder) if read_results(path).get("weights", hashes) != hashes]


def _figures(folder: Path) -> Finding:
    """Do the card's figures, intervals and floors stand in the results files, and the other way round."""
    try:
        stale = [path.name for path in stale_results(folder)]
        card = ModelCard.load(folder / CARD_NAME).data.eval_results or [] if _card_text(folder) else []
        measured = [entry for path in results_files(folder) for entry in _measured(path)]
    except (ValueError, yaml.YAMLError) as error:
        return Finding("results", "fail", str(error))
    if stale:
        return Finding("results", "fail", f"{', '.join(stale)}: of other weights: delete them, evaluate again")
    if not measured:
        detail = f"no results file: {len(card)} figures of the card cannot be held against anything" if card else "none"
        return Finding("results", "note", detail)
    wrong = [entry.metric_name for entry in card if not any(_agree(entry, other) for other in measured)]
    untold = [entry.metric_name for entry in measured if not any(_agree(other, entry) for other in card)]
    problems = {"in the card, but in no results file": wrong, "measured, but the card says otherwise": untold}
    said = [f"{what}: {', '.join(map(str, names[:5]))}" for what, names in problems.items() if names]
    if said:
        return Finding("results", "fail", "; ".join(said))
    return Finding("results", "ok", f"{len(card)} figures of the card are in {len(results_files(folder))} file(s)")


def _measured(path: Path) -> Iterator[EvalResult]:
    result = read_results(path)
    for entry in eval_results(result):
        entry.dataset_name = entry.dataset_name if result.get("dataset") else None  # train's own file names none
        yield entry


def _agree(said: EvalResult, measured: EvalResult) -> bool:
    """Whether a line of the card is this measurement: name, data set, value, bounds and floor."""
    of_one = said.metric_name == measured.metric_name and measured.dataset_name in (None, said.dataset_name)
    return of_one and all(map(_close, _numbers(said), _numbers(measured)))


def _numbers(entry: EvalResult) -> list[Any]:
    arguments = entry.metric_args or {}
    return [entry.metric_value, *map(arguments.get, ("interval_95_low", "interval_95_high", "random_weights"))]


def _close(said: Any, measured: Any) -> bool:
    if said is None or measured is None:
        return said is measured
    return abs(float(said) - float(measured)) <= _SAME * max(1.0, abs(float(measured)))


_LOOKS: tuple[Callable[[Path], Finding], ...] = (_pickles, _weights, _hashes, _license, _figures)

# ----- the load ------------------------------------------------------------------------------------------------------


def _strange_code(folder: Path) -> list[str]:
    """The Python files in the folder that are not, byte for byte, this package's file of that name."""
    return [path.name for path in sorted(folder.glob("*.py")) if not _is_ours(path)]


def _is_ours(path: Path) -> bool:
    ours = _PACKAGE / path.name
    return ours.is_file() and _digest(ours) == _digest(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load(folder: Path, timeout: float) -> Finding:
    with tempfile.TemporaryDirectory() as place:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= {"HF_HOME": str(Path(place) / "hf"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-P", "-c", _LOAD_ELSEWHERE, str(folder.resolve())]
        try:
            done = subprocess.run(
                command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Finding("load", "fail", f"not done after {timeout:.0f} s in a clean interpreter")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return Finding("load", "fail", f"in a clean interpreter: {last}")
    return Finding("load", "ok", f"in a clean interpreter: {done.stdout.strip().splitlines()[-1]}")


#: Runs where this package is not: sys.argv is [-c, folder].
_LOAD_ELSEWHERE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_esi", "datasets_scripts", "configuration_esi"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor

folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
classifies = "ForECGClassification" in (config.architectures or [""])[0]
auto = transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModel
model, loading = auto.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
if loading["missing_keys"] or loading["unexpected_keys"]:
    sys.exit(f"weights: missing {list(loading['missing_keys'])[:3]}, too many {list(loading['unexpected_keys'])[:3]}")
model.eval()
has_text = hasattr(model, "text_model")
door = (AutoProcessor if has_text else AutoFeatureExtractor).from_pretrained(folder, trust_remote_code=True)
signal = np.random.default_rng(0).normal(size=(12, 5000))
leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
inputs = door(signal, sampling_rate=500, leads=leads)
with torch.no_grad():
    output = model.get_ecg_features(**inputs) if has_text else model(**inputs)
output = output if torch.is_tensor(output) else output.logits if classifies else output.pooler_output
if not torch.isfinite(output).all():
    sys.exit("a record was embedded as numbers that are none")
if has_text:
    texts = door(text=["sinus rhythm"])
    with torch.no_grad():
        model.get_text_features(**texts)
tasks = sorted(getattr(config, "custom_pipelines", None) or {})
wants = {"zero-shot-ecg-classification": {"candidate_labels": ["sinus rhythm"]}, "ecg-to-text": {"max_new_tokens": 4}}
for task in tasks:
    pipe = transformers.pipeline(task, model=folder, trust_remote_code=True)
    pipe({"signal": signal, "sampling_rate": 500, "leads": leads}, **wants.get(task, {}))
told = f"; pipelines {', '.join(tasks)}" if tasks else ""
print(f"{type(model).__name__} and {type(door).__name__}, a record gives {tuple(output.shape)}{told}")
"""

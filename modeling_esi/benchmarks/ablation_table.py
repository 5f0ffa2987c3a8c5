"""The table of the ablation: means over seeds, and paired intervals against a baseline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from modeling_esi.evaluation.metrics import bootstrap_interval, macro_auroc


def table(results: Path, stage: str, baseline: str, prompts: str = "codes", view: str = "") -> str:
    """Markdown: for each arm of a stage the number of seeds, probe and zero-shot (mean, spread), and the differences.

    A difference is between means over seeds, with a 95 % interval over patients drawn with replacement, the same draws
    for both arms. The probe's strength is the best of the arm's mean in stage "choose". `prompts` names the prompt set;
    `view` is "whole/" for records seen at once. ValueError without the lines.
    """
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    by_arm: dict[str, list[dict]] = {}
    for line in lines:
        if line["stage"] == stage:
            by_arm.setdefault(line["arm"], []).append(line)
    if not by_arm:
        raise ValueError(f"{results}: expected lines of stage {stage!r}, got none; run the arms first.")
    strengths = {arm: best_strength(lines, arm, view) for arm in by_arm}
    rows = [
        "| arm | seeds | probe | zero-shot | probe against baseline | zero-shot against baseline |",
        "|" + "---|" * 6,
    ]
    for arm, runs in by_arm.items():
        protocols = (strengths[arm], zero_shot_key(runs[0], prompts, view))
        cells = [f"{mean_and_spread([run['figures'][protocol] for run in runs])}" for protocol in protocols]
        against = ["", ""]
        if arm != baseline and baseline in by_arm:
            theirs = (strengths[baseline], zero_shot_key(by_arm[baseline][0], prompts, view))
            against = [
                difference(results.parent / "scores", stage, (arm, runs, mine), (baseline, by_arm[baseline], other))
                for mine, other in zip(protocols, theirs, strict=True)
            ]
        rows.append(f"| {arm} | {len(runs)} | {' | '.join(cells + against)} |")
    return "\n".join(rows)


def zero_shot_key(run: dict, prompts: str, view: str) -> str:
    """The zero-shot protocol of a run; without the view where training saw whole records, which are judged once."""
    key = f"{view}zero_shot/{prompts}"
    return key if key in run["figures"] else f"zero_shot/{prompts}"


def best_strength(lines: list[dict], arm: str, view: str = "") -> str:
    """The probe's key with the highest mean on validation; over all arms where this one has no such run."""
    chosen = [line["figures"] for line in lines if line["stage"] == "choose"]
    own = [line["figures"] for line in lines if line["stage"] == "choose" and line["arm"] == arm] or chosen
    if not own:
        raise ValueError(f"{arm}: the probe's strength is chosen on validation; run stage choose first.")
    keys = [key for key in own[0] if key.startswith(f"{view}probe/")]
    keys = keys or [key for key in own[0] if key.startswith("probe/")]
    return max(keys, key=lambda key: np.mean([figures[key] for figures in own]))


def mean_and_spread(values: list[float]) -> str:
    """`85.1 ± 0.4`, the spread being the standard deviation over seeds, where there are several."""
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def difference(
    scores_dir: Path, stage: str, one: tuple[str, list[dict], str], other: tuple[str, list[dict], str]
) -> str:
    """`+1.2 (0.1 to 2.3)`: mean over seeds of one arm minus the other's, AUROC x 100."""
    truth = np.load(scores_dir / f"{stage}-targets.npz")
    targets, patients = truth["targets"], truth["patients"].tolist()
    sides = [
        [macro_auroc(np.load(scores_dir / f"{stage}-{arm}-{run['seed']}.npz")[protocol], targets) for run in runs]
        for arm, runs, protocol in (one, other)
    ]

    def gain(indices: np.ndarray) -> float:
        mine, theirs = (np.mean([statistic(indices) for statistic in side]) for side in sides)
        return float(100 * (mine - theirs))

    low, high = bootstrap_interval(gain, patients, targets, num_resamples=500)
    return f"{gain(np.arange(len(targets))):+.1f} ({low:.1f} to {high:.1f})"

"""Which parts of the method help, on real records: one run for each arm and seed, one line of JSON for each run.

    python -m modeling_esi.benchmarks.ablation run --data_dir DATA --results results.jsonl --arms esi crops
    python -m modeling_esi.benchmarks.ablation run ... --stage report --arms esi --seeds 0 1 2
    python -m modeling_esi.benchmarks.ablation table --results results.jsonl

DATA holds `ptbxl_filtered` (folds 1-8) and `ptbxl` (raw, folds 9-10). Stage "choose" trains on folds 1-6 and judges on
7-8. When everything is chosen, "confirm" trains on 3-8 and judges on 1-2, which nothing was chosen on, and "report"
trains on 1-8 and judges on 9-10. A run that stands in the results is not repeated, so a killed command goes on where it
was. Scores of every record lie beside the results, for `ablation_table`. One run takes minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling_esi.benchmarks.ablation_arms import ARMS
from modeling_esi.benchmarks.ablation_data import STAGES, RecordSet, load_filtered, load_raw
from modeling_esi.benchmarks.ablation_judging import macro, probe_scores, prompt_sets, zero_shot_scores
from modeling_esi.benchmarks.ablation_table import table
from modeling_esi.benchmarks.ablation_training import Arm, embed, train
from modeling_esi.modeling_esi import ESIModel
from modeling_esi.processing_esi import ESIProcessor

logger = logging.getLogger("ablation")

PromptSets = dict[str, dict[str, list[str]]]


def load_stage(data_dir: Path, stage: str) -> tuple[RecordSet, RecordSet]:
    """Records to train on and to judge on. ValueError for a stage that is none."""
    if stage not in STAGES:
        raise ValueError(f"stage: expected one of {', '.join(STAGES)}, got {stage!r}.")
    trained, judged = STAGES[stage]
    training = load_filtered(data_dir / "ptbxl_filtered", trained)
    if stage == "report":
        return training, load_raw(data_dir / "ptbxl", judged)
    return training, load_filtered(data_dir / "ptbxl_filtered", judged)


def run_arm(
    arm: Arm, seed: int, training: RecordSet, judged: RecordSet, prompts: PromptSets, curve_epochs: int = 0
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and judge: figures for the results, and the scores of every judged record by protocol.

    With `curve_epochs`, `curve` tells the figures after every so many epochs.
    """
    curve: dict[int, dict[str, float]] = {}

    def after_epoch(epoch: int, model: ESIModel, processor: ESIProcessor) -> None:
        if curve_epochs and epoch % curve_epochs == 0 and epoch < arm.epochs:
            curve[epoch] = figures_of(judge(model, processor, training, judged, prompts), judged)

    started = time.perf_counter()
    model, processor, losses = train(arm, training, seed, after_epoch)
    minutes = round((time.perf_counter() - started) / 60, 2)
    scores = judge(model, processor, training, judged, prompts)
    told = {"figures": figures_of(scores, judged), "curve": curve, "losses": losses, "train_minutes": minutes}
    return told, scores


def judge(
    model: ESIModel, processor: ESIProcessor, training: RecordSet, judged: RecordSet, prompts: PromptSets
) -> dict[str, np.ndarray]:
    """Scores `(N, 5)` of the judged records, by protocol: zero-shot by prompts, probe by strength.

    Records are seen by windows as long as training's crops, averaged; under `whole/`, at once.
    """
    scores = {}
    cropped = processor.feature_extractor.num_samples < judged.signals.shape[-1]
    for prefix in ("", "whole/") if cropped else ("",):
        (features, _), (judged_features, embeds) = (
            embed(model, processor, part.signals, whole=bool(prefix)) for part in (training, judged)
        )
        for name, some in prompts.items():
            scores[f"{prefix}zero_shot/{name}"] = zero_shot_scores(model, processor, embeds, some)
        for strength, of_strength in probe_scores(features, training.targets, judged_features).items():
            scores[f"{prefix}probe/{strength:g}"] = of_strength
    return scores


def figures_of(scores: dict[str, np.ndarray], judged: RecordSet) -> dict[str, float]:
    return {name: round(macro(values, judged.targets), 3) for name, values in scores.items()}


def run(arguments: argparse.Namespace) -> None:
    """Every arm and seed asked for that has no line in the results yet."""
    results = Path(arguments.results)
    scores_dir = results.parent / "scores"
    scores_dir.mkdir(parents=True, exist_ok=True)
    data_dir = Path(arguments.data_dir)
    training, judged = load_stage(data_dir, arguments.stage)
    np.savez(scores_dir / f"{arguments.stage}-targets.npz", targets=judged.targets, patients=judged.patients())
    prompts = prompt_sets(data_dir / "ptbxl")
    for seed in arguments.seeds:
        for name in arguments.arms:
            arm = replace(ARMS[name], **json.loads(arguments.set or "{}"))
            key = {"stage": arguments.stage, "arm": name + arguments.suffix, "seed": seed}
            if any(key.items() <= line.items() for line in read_results(results)):
                continue
            figures, scores = run_arm(arm, seed, training, judged, prompts, arguments.curve_epochs)
            np.savez(scores_dir / f"{key['stage']}-{key['arm']}-{seed}.npz", **scores)
            with results.open("a") as file:
                file.write(json.dumps({**key, **figures, "settings": asdict(arm)}) + "\n")
            logger.info("%s %s", key, figures["figures"])


def read_results(path: Path) -> list[dict[str, Any]]:
    """The lines so far, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data_dir", help="folder with ptbxl_filtered and ptbxl")
    parser.add_argument("--results", required=True, help="JSON lines; scores lie in a folder beside it")
    parser.add_argument("--stage", default="choose", choices=STAGES, help="which folds train and judge")
    parser.add_argument("--arms", nargs="+", default=["esi"], choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", help="fields of the arm to change, as JSON; give the run a --suffix")
    parser.add_argument("--suffix", default="", help="added to the arm's name")
    parser.add_argument("--baseline", default="esi", help="arm of the table's paired intervals")
    parser.add_argument("--prompts", default="codes", help="prompt set of the table: one, several or codes")
    parser.add_argument("--whole", action="store_true", help="table of records seen at once, not by windows")
    parser.add_argument("--curve_epochs", type=int, default=0, help="judge after every so many epochs too")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    if arguments.action == "run":
        run(arguments)
    else:
        view = "whole/" if arguments.whole else ""
        made = table(Path(arguments.results), arguments.stage, arguments.baseline, arguments.prompts, view)
        sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a training says of its results: a line, a table, reports beside the true ones, and the facts of the card."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datasets_scripts import LoadReport
from datasets_scripts.sources import SOURCES, find_source
from modeling_esi.modeling_esi import ESIModel
from modeling_esi.processing_esi import ESIProcessor

from ..evaluation.embedding import read_records

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

IN_A_LINE = ("contrastive_excess", "ln_batch", "caption_loss", "ecg_to_text/recall@1", "macro_auroc")


def summary_line(epoch: int, results: Mapping[str, Any]) -> str:
    """A validation in one line."""
    found = {name: results.get(f"validation/{name}") for name in IN_A_LINE}
    return f"epoch {epoch}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items() if value is not None)


def results_table(results: Mapping[str, Any], floor: Mapping[str, Any]) -> str:
    """Figures of the test split beside those of random weights."""
    if not results:
        return "\nThe data have no held-out test split: nothing was judged. See `python -m modeling_esi.evaluation`."
    lines = ["", f"{'held-out test split':<52}{'trained':>10}{'random':>10}"]
    for name, value in results.items():
        if isinstance(value, float) and not name.startswith("test/num_"):
            beside = floor.get(name)
            shown = "" if beside is None else f"{beside:>10.3f}"
            lines.append(f"{name.removeprefix('test/'):<52}{value:>10.3f}{shown}")
    return "\n".join(lines)


def written_reports(
    model: ESIModel, processor: ESIProcessor, dataset: datasets.Dataset | None, num_reports: int
) -> str:
    """Generated reports beside the true ones; nothing where the model cannot write."""
    can_write = model.decoder is not None and model.config.decoder_config.input_states == "token_embeddings"
    if dataset is None or num_reports < 1 or not can_write:
        return ""
    records = read_records(dataset, range(min(num_reports, len(dataset))))
    inputs = processor.feature_extractor(records, device=model.device)
    written = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)
    told = (f"\n{record.record_id}\n  true:      {record.text}\n  generated: {text}"
            for record, text in zip(records, written, strict=True))  # fmt: skip
    return "\n".join(told)


def is_split_by_patient(splits: Mapping[str, datasets.Dataset | None]) -> bool:
    """Whether every record names its patient, and no patient is in two splits."""
    patients = [set(rows["patient_id"]) for rows in splits.values() if rows is not None]
    all_patients = set().union(*patients)
    return all(all_patients) and sum(map(len, patients)) == len(all_patients)


def card_facts(
    flags: Mapping[str, Any], reports: Mapping[str, LoadReport | None], results: Mapping[str, Any],
    floor: Mapping[str, Any], *, is_by_patient: bool,
) -> dict[str, Any]:  # fmt: skip
    """What the model card says of this training, for `write_model_card`."""
    if flags["license"] is None:
        logger.warning("--license: none given; the card says 'other'. A card's licence follows the weights and data.")
    counts = ", ".join(f"{report.num_kept:,} {split}" for split, report in reports.items() if report)
    source = reports["train"].name
    judged = {
        "trained": results,
        "random_weights": floor,
        "dataset": source,
        "protocol": "zero-shot by cosine to averaged prompts, retrieval and losses on the held-out test split",
        "seen_in_training": False,
    }
    return {
        "license": flags["license"] or "other",
        "data_licenses": {source: find_source(source).FACTS.license} if source in SOURCES else None,
        "training_data": f"{source}: {counts} records{', split by patient' if is_by_patient else ''}.",
        "base_model": None if flags["text_encoder"] == "scratch" else flags["text_encoder"],
        "results": judged if results else None,
        "text_is_label_supervised": reports["train"].text_is_label_supervised,
        "recipe": dict(flags),
    }

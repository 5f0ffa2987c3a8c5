"""Recordings to try: synthetic ones, each made when it is chosen."""

from __future__ import annotations

from datasets_scripts import synthetic_findings as findings
from datasets_scripts.records import ECGRecord
from datasets_scripts.synthetic import generate_record

EXAMPLES: dict[str, tuple[str, ...]] = {
    name[0].upper() + name[1:]: (name,)
    for name in (
        findings.NORMAL,
        findings.ATRIAL_FIBRILLATION,
        findings.LEFT_BUNDLE_BLOCK,
        findings.RIGHT_BUNDLE_BLOCK,
        findings.ANTERIOR_ST,
        findings.INFERIOR_ST,
        findings.PREMATURE_BEATS,
        findings.PACING,
    )
}
LABELS = (
    findings.NORMAL,
    findings.SINUS_TACHYCARDIA,
    findings.SINUS_BRADYCARDIA,
    findings.ATRIAL_FIBRILLATION,
    findings.LEFT_BUNDLE_BLOCK,
    findings.RIGHT_BUNDLE_BLOCK,
    findings.HYPERTROPHY,
    findings.ANTERIOR_ST,
    findings.INFERIOR_ST,
    findings.PREMATURE_BEATS,
)


def example(name: str) -> ECGRecord:
    """The example of that name, always the same. Raises ValueError for another name."""
    if name not in EXAMPLES:
        raise ValueError(f"Example: expected one of {', '.join(EXAMPLES)}, got {name!r}.")
    wanted = () if EXAMPLES[name] == (findings.NORMAL,) else EXAMPLES[name]
    seed = list(EXAMPLES).index(name)
    heart_rate = 72 if wanted != (findings.ATRIAL_FIBRILLATION,) else None
    return generate_record(seed, wanted, heart_rate=heart_rate, record_id=f"example: {name}")

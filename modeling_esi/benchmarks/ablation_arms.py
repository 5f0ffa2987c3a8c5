"""The arms of the ablation by name: each differs from `esi` in what its name says."""

from dataclasses import replace

from modeling_esi.benchmarks.ablation_training import Arm

NOISE = {"amplitude": 0.2, "wander": 0.5, "muscle": 0.2, "shift": 1.0}

ESI = Arm()
CROPS = replace(ESI, crop=2.5, lr=1e-3)
STRONG = replace(CROPS, signal=NOISE, lead_dropout=0.5, average=0.99)

ARMS: dict[str, Arm] = {
    "released": replace(ESI, variant="released", text_augmentation=False, positives="pair"),
    "esi": ESI,
    "crops": CROPS,
    "crops_entailed": replace(CROPS, positives="entailed"),
    "crops_average": replace(CROPS, average=0.99),
    "strong": STRONG,
    "strong_entailed": replace(STRONG, positives="entailed"),
}

"""The arms of the ablation by name: each differs from the one it starts from in what its name says."""

import math
from dataclasses import replace

from modeling_esi.benchmarks.ablation_training import Arm

NOISE = {"amplitude": 0.2, "wander": 0.5, "muscle": 0.2, "shift": 1.0}
SIGLIP = {"logit_scale_init_value": math.log(10.0)}

RELEASED = Arm(variant="released", text_augmentation=False, positives="pair", epochs=20)
ESI = Arm(epochs=20)
CROPS = replace(ESI, crop=2.5, lr=1e-3)
ENTAILED = replace(CROPS, positives="entailed")
STRONG = replace(ENTAILED, signal=NOISE, lead_dropout=0.5, average=0.99)

ARMS: dict[str, Arm] = {
    "released": RELEASED,
    "released_lr": replace(RELEASED, lr=1e-3),
    "esi": ESI,
    "esi_lr": replace(ESI, lr=1e-3),
    "no_text_augmentation": replace(ESI, text_augmentation=False),
    "pairs": replace(CROPS, positives="pair"),
    "crops": CROPS,
    "entailed": ENTAILED,
    "scaled_4": replace(ENTAILED, scaling="fixed"),
    "stem_bias": replace(ENTAILED, stem_bias_std=0.1),
    "more_subsets": replace(ENTAILED, subset=0.9),
    "sigmoid": replace(ENTAILED, sigmoid=-2.0, overrides=SIGLIP),
    "lead_dropout": replace(ENTAILED, lead_dropout=0.5),
    "noise": replace(ENTAILED, signal=NOISE),
    "average": replace(ENTAILED, average=0.99),
    "masked": replace(ENTAILED, masked=0.5),
    "alignment": replace(ENTAILED, alignment=0.5),
    "strong": STRONG,
    "strong_40": replace(STRONG, epochs=40),
}

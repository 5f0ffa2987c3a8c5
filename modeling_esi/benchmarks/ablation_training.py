"""One run of the ablation: an arm's model, trained on records in memory, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import augment_statements_text, choose_text, read_waveforms, text_key
from modeling_esi.benchmarks.ablation_data import SAMPLING_RATE, RecordSet
from modeling_esi.configuration_esi import LEADS, ESIConfig
from modeling_esi.evaluation.held_out_losses import key_numbers
from modeling_esi.feature_extraction_esi import ESIFeatureExtractor
from modeling_esi.losses import entailed_pairs
from modeling_esi.modeling_esi import ESIModel
from modeling_esi.processing_esi import ESIProcessor
from modeling_esi.training.augmentation import SignalAugmentation, drop_leads
from modeling_esi.training.entailment import found_in, said_in, statement_numbers
from modeling_esi.training.extra_losses import (
    MaskedFrames,
    PairwiseSigmoid,
    TokenFrameAlignment,
    multi_positive_loss,
)
from modeling_esi.training.text_from_scratch import small_bert_config, train_tokenizer
from modeling_esi.training.weight_average import WeightAverage

WIDTH = 128


@dataclass(frozen=True)
class Arm:
    """Everything in which runs may differ; the defaults are `esi` as it stands, each part is one field.

    Attributes:
        variant: of `ESIConfig`; `overrides` are more fields of it, with dots for sub-configurations.
        epochs, lr, weight_decay, batch_size: AdamW with a cosine after 10 % of warm-up.
        scaling: of the door; the records are z-scores, so "none" leaves spread 1, and "fixed" makes it 4.
        stem_bias_std: spread of the stem's bias at the start (0: as configured).
        text_augmentation: demographics dropped, statements sampled and shuffled; `subset` is the share of the texts
            that say a sample of their statements only.
        waveforms: JSON file of descriptions that stand behind the statements they describe; empty: none.
        max_text_length: tokens after which a text is cut.
        signal: strengths of `SignalAugmentation`, where 1 mV is one z-score.
        crop: seconds seen in training; judged on windows of this length, averaged.
        lead_dropout: share of the records that lose leads.
        positives: "pair", "text_key", or "entailed" (`entailment.py`).
        sigmoid: start of the bias of `PairwiseSigmoid` over entailed pairs; 0 keeps the softmax.
        average: decay of `WeightAverage`; 0 judges the last weights.
        masked, alignment: weights of `MaskedFrames` and `TokenFrameAlignment`.
        caption: weight of the caption loss.
    """

    variant: str = "esi"
    overrides: dict[str, Any] = field(default_factory=dict)
    epochs: int = 15
    lr: float = 5e-4
    weight_decay: float = 0.01
    batch_size: int = 48
    scaling: str = "none"
    stem_bias_std: float = 0.0
    text_augmentation: bool = True
    subset: float = 0.5
    waveforms: str = ""
    max_text_length: int = 96
    signal: dict[str, float] = field(default_factory=dict)
    crop: float = 10.0
    lead_dropout: float = 0.0
    positives: str = "text_key"
    sigmoid: float = 0.0
    average: float = 0.0
    masked: float = 0.0
    alignment: float = 0.0
    caption: float = 1.0


def build(arm: Arm, records: Sequence[ECGRecord], seed: int) -> tuple[ESIModel, ESIProcessor]:
    """A fresh model of the arm, with tokenizer and text encoder made from the training texts."""
    tokenizer = train_tokenizer([record.text for record in records], 1000, arm.max_text_length)
    sections: dict[str, Any] = {
        "ecg_config": {"signal_encoder": "convnextv2_atto"},
        "decoder_config": {
            "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": WIDTH // 4,
            "bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
    }  # fmt: skip
    fields: dict[str, Any] = {"projection_dim": WIDTH, "caption_loss_weight": arm.caption}
    for name, value in arm.overrides.items():
        section, _, key = name.rpartition(".")
        (sections[section] if section else fields)[key] = value
    torch.manual_seed(seed)
    config = ESIConfig.from_variant(
        arm.variant, text_config=small_bert_config(tokenizer, WIDTH, 3), **sections, **fields
    )
    model = ESIModel(config)
    if arm.stem_bias_std:
        with torch.no_grad():
            model.ecg_model.encoder.downsamples[0].conv.bias.normal_(0, arm.stem_bias_std)
    door = ESIFeatureExtractor(sampling_rate=SAMPLING_RATE, duration=arm.crop, scaling=arm.scaling)
    return model, ESIProcessor(door, tokenizer, max_text_length=arm.max_text_length)


def train(
    arm: Arm, records: RecordSet, seed: int, after_epoch: Callable[[int, ESIModel, ESIProcessor], None] | None = None
) -> tuple[ESIModel, ESIProcessor, list[float]]:
    """The trained model (its averaged weights, where the arm has them) and the loss of each epoch.

    `after_epoch` is called with the number of epochs done and a copy of the model as it would be judged then.
    """
    waveforms = read_waveforms(arm.waveforms) if arm.waveforms else {}
    if waveforms:
        records = described(records, waveforms)
    model, processor = build(arm, records.records, seed)
    heads = nn.ModuleDict()
    if arm.masked:
        heads["masked"] = MaskedFrames(model.config.ecg_config.hidden_sizes[-1])
    if arm.sigmoid:
        heads["sigmoid"] = PairwiseSigmoid(arm.sigmoid)
    if arm.alignment:
        heads["alignment"] = TokenFrameAlignment(model.config.ecg_config.hidden_sizes[-1], WIDTH, WIDTH)
    optimizer = build_optimizer(nn.ModuleList([model, heads]), arm)
    average = WeightAverage(model, arm.average) if arm.average else None
    keys = torch.from_numpy(key_numbers([text_key(record.statements) for record in records.records]))
    steps_per_epoch = len(records) // arm.batch_size
    total, losses = arm.epochs * steps_per_epoch, []
    model.train()
    for epoch in range(arm.epochs):
        order, epoch_loss = np.random.default_rng([seed, epoch]).permutation(len(records)), 0.0
        for i in range(steps_per_epoch):
            step = epoch * steps_per_epoch + i
            for group in optimizer.param_groups:
                group["lr"] = arm.lr * cosine(step, total)
            chosen = order[i * arm.batch_size : (i + 1) * arm.batch_size]
            loss = step_loss(arm, model, processor, heads, records, keys, waveforms, chosen, [seed, step])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if average:
                average.update(model)
            epoch_loss += loss.item() / steps_per_epoch
        losses.append(epoch_loss)
        if after_epoch:
            after_epoch(epoch + 1, as_judged(model, average), processor)
    return as_judged(model, average), processor, losses


def described(records: RecordSet, waveforms: dict[str, str]) -> RecordSet:
    """The same records, their texts with descriptions behind the statements."""
    fields = [{"statements": r.statements, "age": r.age, "sex": r.sex} for r in records.records]
    texts = [choose_text(one, "statements", waveforms) for one in fields]
    told = tuple(replace(record, text=text) for record, text in zip(records.records, texts, strict=True))
    return replace(records, records=told)


def as_judged(model: ESIModel, average: WeightAverage | None) -> ESIModel:
    """A copy in evaluation mode, with the averaged weights where there are some."""
    copy = deepcopy(model)
    if average:
        copy.load_state_dict(average.weights())
    return copy.eval()


def step_loss(
    arm: Arm, model: ESIModel, processor: ESIProcessor, heads: nn.ModuleDict, records: RecordSet, keys: torch.Tensor,
    waveforms: dict[str, str], chosen: np.ndarray, seed: list[int],
) -> torch.Tensor:  # fmt: skip
    """The arm's loss on the records numbered `chosen`; all chance comes from `seed`."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    some = [records.records[i] for i in chosen]
    texts = [
        augment_statements_text(r.statements, r.age, r.sex, rng, subset_probability=arm.subset, waveforms=waveforms)
        if arm.text_augmentation
        else r.text
        for r in some
    ]
    tokens = processor(text=texts)
    augment = SignalAugmentation(**arm.signal).bind(SAMPLING_RATE, generator)
    inputs = processor.feature_extractor.transform(
        records.signals[torch.from_numpy(chosen)], SAMPLING_RATE, LEADS, crop="random", generator=generator,
        augment=augment,
    )  # fmt: skip
    values, lead_mask = inputs["input_values"], inputs["lead_mask"]
    if arm.lead_dropout:
        values, lead_mask = drop_leads(values, lead_mask, arm.lead_dropout, generator)
    seen, hidden = heads["masked"].hide(values, generator) if arm.masked else (values, None)
    positives = None
    if arm.positives == "entailed":
        said = [said_in(record, text) for record, text in zip(some, texts, strict=True)]
        positives = entailed_pairs(statement_numbers(said), statement_numbers([found_in(r) for r in some]))
    text_keys = keys[torch.from_numpy(chosen)] if arm.positives == "text_key" else None
    output = model(
        input_values=seen, lead_mask=lead_mask, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"],
        text_key=text_keys, return_loss=True,
    )  # fmt: skip
    loss = output.loss
    if positives is not None:
        contrast = heads["sigmoid"] if arm.sigmoid else multi_positive_loss
        loss = loss - output.contrastive_loss + contrast(output.logits_per_text, positives)
    ecg = output.ecg_model_output
    if arm.masked:
        loss = loss + arm.masked * heads["masked"](ecg.last_hidden_state, values, hidden, lead_mask)
    if arm.alignment:
        states = output.text_model_output.last_hidden_state
        mask = tokens["attention_mask"][:, : states.shape[1]]
        aligned = heads["alignment"](ecg.last_hidden_state, ecg.frame_mask, states, mask, positives)
        loss = loss + arm.alignment * aligned
    return loss


def cosine(step: int, total: int, warmup: float = 0.1) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine to 0."""
    first = warmup * total
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / (total - first)))


def build_optimizer(model: nn.Module, arm: Arm) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices alone."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": arm.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=arm.lr)


@torch.no_grad()
def embed(
    model: ESIModel, processor: ESIProcessor, signals: torch.Tensor, whole: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled `(N, H)` and projected `(N, P)`: means over half-overlapping windows as long as training's crops.

    With `whole`, the records are seen at once, as a saved model sees them: the encoder takes any length.
    """
    door = processor.feature_extractor
    samples = signals.shape[-1]
    if whole:
        door = ESIFeatureExtractor(SAMPLING_RATE, samples / SAMPLING_RATE, scaling=door.scaling)
    starts = range(0, samples - door.num_samples + 1, max(1, door.num_samples // 2))
    pooled, embeds = [], []
    for part in signals.split(128):
        windows = [part[..., start : start + door.num_samples] for start in starts]
        values = [door.transform(window, SAMPLING_RATE, LEADS)["input_values"] for window in windows]
        ecgs = [model.ecg_model(window).pooler_output for window in values]
        pooled.append(torch.stack(ecgs).mean(0))
        embeds.append(torch.stack([model._embed_ecg(model.ecg_norm(model.ecg_head(ecg))) for ecg in ecgs]).mean(0))
    return torch.cat(pooled).numpy(), torch.cat(embeds).numpy()

"""Train ESI: raw ECGs and their texts in, a Hugging Face model folder out. Read it top to bottom.

    accelerate launch train_accelerate.py                                       # the demo (recipes/demo.yaml)
    accelerate launch train_accelerate.py --config recipes/ptb_xl.yaml --data_dir physionet.org/files/ptb-xl/1.0.3
    accelerate launch train_accelerate.py --config recipes/demo.yaml --epochs 2 --output_dir esi-try

A recipe is a YAML file of the flags below; flags on the command line override it. The same command again goes on where
a run was stopped or killed. `docs/training.md` explains each flag and maps the authors' script onto this one.
"""

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import nn
from tqdm.auto import tqdm
from transformers import HfArgumentParser, PreTrainedTokenizerBase

from datasets_scripts import LoadReport, load_ecg_dataset_with_report
from datasets_scripts.loading import NoRecordsError
from modeling_esi import ESIConfig, ESIFeatureExtractor, ESIModel, ESIOutput, ESIProcessor
from modeling_esi.configuration_esi import VARIANT_SCALING
from modeling_esi.evaluation.door_check import refused_rows
from modeling_esi.evaluation.held_out_losses import held_out_losses, held_out_outputs
from modeling_esi.evaluation.prompts import training_prompts
from modeling_esi.evaluation.retrieval import retrieval
from modeling_esi.evaluation.zero_shot import zero_shot
from modeling_esi.hub import push_folder, write_model_card
from modeling_esi.training.augmentation import SignalAugmentation
from modeling_esi.training.batches import Position, StepReader, TrainingOrder, read_ahead
from modeling_esi.training.checkpoints import (
    ResumeError,
    keep_in_checkpoints,
    only_run_in,
    save_checkpoint,
    write_finished,
)
from modeling_esi.training.devices import (
    choose_precision,
    compile_parts,
    refuse_sharded,
    set_cpu_threads,
    whole_model,
    with_shared_batch_norm,
)
from modeling_esi.training.door import TrainingDoor, training_processor
from modeling_esi.training.extra_terms import ExtraTerms
from modeling_esi.training.gradient_cache import cached_backward
from modeling_esi.training.health import LOSSES, CollapseWatch, StepMeter, contrast_size, is_broken, stop_at_broken_step
from modeling_esi.training.resuming import begin_state, choose_start, go_on_from, remove_after
from modeling_esi.training.schedule import Schedule, build_optimizer
from modeling_esi.training.stopping import Agreement, StopSignals, follow_launcher, stop_at_signal
from modeling_esi.training.summary import (
    card_facts,
    is_split_by_patient,
    results_table,
    summary_line,
    written_reports,
)
from modeling_esi.training.text_encoder import TextEncoder, load_text_encoder
from modeling_esi.training.text_from_scratch import small_bert_config, train_tokenizer
from modeling_esi.training.training_log import TrainingLog
from modeling_esi.training.weight_average import WeightAverage

logger = logging.getLogger("train_accelerate")
HERE = Path(__file__).resolve().parent
REFUSED = {  # flags of other scripts, and what to do instead
    "gpu_ids": "choose devices where processes start: accelerate launch --gpu_ids 0,1 train_accelerate.py",
    "gradient_accumulation_steps": (
        "adding up the gradients of small batches contrasts each record with its own small batch alone, which is "
        "another loss. For a large batch in little memory give that --batch_size and --contrastive_chunk_size, the "
        "records that are in memory at once (GradCache: the gradients of the whole batch)."
    ),
}

# ---------------------------------------------------------------------------------------------------------------------
# Flags


@dataclass
class ModelArguments:
    """What is trained."""

    variant: str = field(default="esi", metadata={"help": "esi (this project's method) or released (the published)"})
    signal_encoder: str = field(default="convnextv2_base", metadata={"help": "encoder preset, see docs/model.md"})
    text_encoder: str = field(
        default="michiyasunaga/BioLinkBERT-base",
        metadata={"help": "Hub name or folder of the text encoder, or 'scratch': tokenizer and BERT from the data"},
    )
    dim: int = field(default=768, metadata={"help": "model width D"})
    projection_dim: int = field(default=768, metadata={"help": "width P of the shared embedding space"})
    decoder_layers: int = field(default=6, metadata={"help": "layers of the caption decoder"})
    decoder_heads: int = field(default=8, metadata={"help": "attention heads of the caption decoder"})
    decoder_head_dim: int = field(default=64, metadata={"help": "width of one head"})
    drop_path_rate: float = field(default=0.0, metadata={"help": "stochastic depth in the ECG encoder"})
    caption_loss_weight: float = field(default=1.0, metadata={"help": "0 trains without a decoder"})
    positives: str | None = field(default=None, metadata={"help": "pair, text_key, entailed; default: the variant's"})
    sampling_rate: float = field(default=500.0, metadata={"help": "Hz that the model sees"})
    duration: float = field(default=10.0, metadata={"help": "seconds that the model sees"})
    scaling: str | None = field(default=None, metadata={"help": "fixed, record, lead or none; default: the variant's"})
    max_text_length: int = field(default=500, metadata={"help": "tokens after which a text is cut"})
    scratch_vocab_size: int = field(default=1000, metadata={"help": "WordPieces of --text_encoder scratch"})
    scratch_layers: int = field(default=2, metadata={"help": "layers of --text_encoder scratch"})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "trade time for memory"})
    compile: bool = field(default=False, metadata={"help": "torch.compile of ECG encoder and decoder"})


@dataclass
class DataArguments:
    """What it learns from."""

    dataset: str | None = field(default=None, metadata={"help": "a source (ptb_xl, ...), or a prepared folder"})
    data_dir: str | None = field(default=None, metadata={"help": "the data set's folder, as it is published"})
    meta_path: str | None = field(default=None, metadata={"help": "the authors' CSV (then --dataset is esi_csv)"})
    file_path: str | None = field(default=None, metadata={"help": "folder of the ecg_*.npy that the CSV names"})
    text: str | None = field(
        default=None, metadata={"help": "report, statements, report_else_statements (default); a prepared folder's own"}
    )
    dataset_options: dict | str | None = field(default=None, metadata={"help": "the source's own options, as JSON"})
    limit: int | None = field(default=None, metadata={"help": "keep at most so many records of each split"})
    text_augmentation: bool = field(default=True, metadata={"help": "leave out demographics and sentences at random"})
    crop_duration: float | None = field(default=None, metadata={"help": "seconds seen in training; None: --duration"})
    jitter: float = field(default=0.003, metadata={"help": "mV of noise on every sample in training"})
    gain_jitter: float = field(default=0.003, metadata={"help": "relative gain noise on every lead in training"})
    amplitude_jitter: float = field(default=0.0, metadata={"help": "std of the log of a factor on every lead"})
    baseline_wander: float = field(default=0.0, metadata={"help": "mV, largest amplitude of slow waves"})
    muscle_noise: float = field(default=0.0, metadata={"help": "mV, largest std of white noise on a lead"})
    time_shift: float = field(default=0.0, metadata={"help": "seconds by which a record is turned at most"})
    lead_dropout: float = field(default=0.0, metadata={"help": "share of the records that lose leads"})
    num_workers: int = field(default=0, metadata={"help": "processes that read records; 0 often wins on few cores"})


@dataclass
class TrainingArguments:
    """How it is trained."""

    output_dir: str = field(default="esi-ecg", metadata={"help": "the final folder; checkpoints stand in it meanwhile"})
    lr: float = field(default=5e-5, metadata={"help": "peak learning rate"})
    batch_size: int = field(default=8, metadata={"help": "records on each process"})
    epochs: int = field(default=30, metadata={"help": "passes over the training split"})
    max_steps: int | None = field(default=None, metadata={"help": "stop after so many; the schedule stays"})
    contrastive_chunk_size: int | None = field(
        default=None, metadata={"help": "records in memory at once (GradCache); the losses are those of the batch"}
    )
    schedule: str = field(default="warmup_step_decay", metadata={"help": "warmup_step_decay, linear or cosine"})
    warmup_epochs: float = field(default=5.0, metadata={"help": "warm-up of warmup_step_decay"})
    decay_epochs: float = field(default=10.0, metadata={"help": "epochs between decays of warmup_step_decay"})
    decay_factor: float = field(default=0.1, metadata={"help": "factor of each decay of warmup_step_decay"})
    warmup_ratio: float = field(default=0.1, metadata={"help": "share of the steps, warm-up of linear and cosine"})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's, on matrices only"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "clip gradients at this norm; 0 never"})
    weight_average: float = field(default=0.0, metadata={"help": "decay of a mean of the weights, which is judged"})
    masked_frames_weight: float = field(default=0.0, metadata={"help": "weight of guessing hidden frames"})
    alignment_weight: float = field(default=0.0, metadata={"help": "weight of matching tokens with frames"})
    mixed_precision: str | None = field(default=None, metadata={"help": "no, fp16, bf16; default: bf16 on GPUs"})
    cpu_threads: int | None = field(default=None, metadata={"help": "threads on a CPU; default: its cores, shared out"})
    seed: int = field(default=42, metadata={"help": "the same seed gives the same weights"})
    eval_batch_size: int = field(default=64, metadata={"help": "records at once in validation"})
    eval_epochs: int = field(default=1, metadata={"help": "validate after every so many epochs"})
    eval_limit: int | None = field(default=None, metadata={"help": "validate on at most so many records in training"})
    eval_batch: int = field(default=48, metadata={"help": "batch over which held-out contrastive loss is computed"})
    logging_steps: int = field(default=10, metadata={"help": "log after every so many steps"})
    save_steps: int | None = field(
        default=None, metadata={"help": "checkpoint every so many steps; default each epoch"}
    )
    save_total_limit: int = field(default=2, metadata={"help": "checkpoints kept"})
    resume_from_checkpoint: str = field(default="auto", metadata={"help": "auto, latest, none or a checkpoint folder"})
    report_to: str = field(default="none", metadata={"help": "none, tensorboard, trackio or wandb"})
    num_reports: int = field(default=3, metadata={"help": "generated reports shown at the end"})
    push_to_hub: bool = field(default=False, metadata={"help": "upload the final folder"})
    hub_model_id: str | None = field(default=None, metadata={"help": "name/repository on the Hub"})
    license: str | None = field(default=None, metadata={"help": "licence of the weights, for the card; needed to push"})


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """Flags over the recipe of `--config`; a bare call is the demo."""
    refuse_flags(flag.split("=")[0].removeprefix("--") for flag in argv if flag.startswith("--"))
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    parser.add_argument("--config", help="recipe, a YAML file of flags")
    config = parser.parse_known_args(argv)[0].config if argv else "recipes/demo.yaml"
    if config is not None:
        recipe, known = read_recipe(config), {action.dest for action in parser._actions}
        refuse_flags(recipe)
        if unknown := sorted(recipe.keys() - known):
            sys.exit(f"{config}: unknown flags {', '.join(unknown)}; expected some of {', '.join(sorted(known))}.")
        parser.set_defaults(**recipe)
    model, data, training, _ = parser.parse_args_into_dataclasses(argv)
    options = data.dataset_options or {}
    data.dataset_options = json.loads(options) if isinstance(options, str) else options
    if data.meta_path or data.file_path:
        data.dataset = "esi_csv"
        data.dataset_options |= {"meta_path": data.meta_path, "file_path": data.file_path}
    if data.dataset is None:
        sys.exit("--dataset: none given. Start from a recipe (--config recipes/demo.yaml), or name ptb_xl or esi_csv.")
    if training.alignment_weight and training.contrastive_chunk_size:
        sys.exit(
            "--alignment_weight contrasts the texts with the ECGs that are in memory; with --contrastive_chunk_size "
            "these are those of a chunk, which is another loss. Give one of the two."
        )
    if training.push_to_hub and not (training.hub_model_id and training.license):
        sys.exit("--push_to_hub needs --hub_model_id name/repository and --license (the weights' and their data's).")
    return model, data, training


def refuse_flags(names: Iterable[str]) -> None:
    """End with what to do instead, for a flag that other scripts have."""
    for name in names:
        if name in REFUSED:
            sys.exit(f"--{name}: {REFUSED[name]}")


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe at `path`, seen from here or from this script's folder."""
    candidates = [Path(path), HERE / path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        sys.exit(f"--config: no file {path}; recipes stand in {HERE / 'recipes'}.")
    return yaml.safe_load(found.read_text()) or {}


# ---------------------------------------------------------------------------------------------------------------------
# Data: rows, and what a step makes of them


def load_split(data: DataArguments, split: str) -> tuple[datasets.Dataset | None, LoadReport | None]:
    """A split and what became of each of its records; `None` where a held-out split has no record."""
    try:
        dataset, report = load_ecg_dataset_with_report(
            data.dataset, data.data_dir, split, text=data.text, limit=data.limit, **data.dataset_options
        )
    except NoRecordsError as error:
        if split == "train":
            raise
        logger.warning("%s; nothing is judged on it.", error)
        return None, None
    logger.info("%s", "\n".join(report.summary()))
    return dataset, report


def drop_rejected(
    dataset: datasets.Dataset | None, feature_extractor: ESIFeatureExtractor, split: str
) -> datasets.Dataset | None:
    """Leave out what the door would refuse: counted, named and explained, before the first step."""
    refused = refused_rows(dataset, feature_extractor) if dataset is not None else {}
    if not refused:
        return dataset
    for record_id, reason in refused.values():
        logger.warning("%s: record %s left out: %s", split, record_id, reason)
    logger.warning("%s: %d of %d records left out at the door.", split, len(refused), len(dataset))
    return dataset.select([row for row in range(len(dataset)) if row not in refused])


def first_rows(dataset: datasets.Dataset | None, limit: int | None) -> datasets.Dataset | None:
    return dataset.select(range(min(len(dataset), limit))) if dataset is not None and limit else dataset


def load_prompts(data: DataArguments, train: datasets.Dataset) -> dict[str, list[str]]:
    """Texts for every label in the words of the training texts, for zero-shot; empty where records have no labels."""
    if not any(train["labels"]):
        return {}
    options = {name: value for name, value in data.dataset_options.items() if name == "task"}
    return training_prompts(data.dataset, data.text, data_dir=data.data_dir, **options)


def build_training_door(processor: ESIProcessor, data: DataArguments, device: torch.device) -> TrainingDoor:
    """What training alone sees of a record: short crops, augmented signals, fewer leads."""
    augmentation = SignalAugmentation(
        data.jitter, data.gain_jitter, amplitude=data.amplitude_jitter, wander=data.baseline_wander,
        muscle=data.muscle_noise, shift=data.time_shift,
    )  # fmt: skip
    return TrainingDoor(training_processor(processor, data.crop_duration), augmentation, data.lead_dropout, device)


# ---------------------------------------------------------------------------------------------------------------------
# Model


def build_model(
    model: ModelArguments, text_encoder: TextEncoder | None, train_texts: list[str]
) -> tuple[ESIModel, PreTrainedTokenizerBase]:
    """A fresh ESI around a loaded text encoder, or around one made from the training texts."""
    if text_encoder is None:
        tokenizer = train_tokenizer(train_texts, model.scratch_vocab_size, model.max_text_length)
        text_config, text_model = small_bert_config(tokenizer, model.dim, model.scratch_layers), None
    else:
        tokenizer, text_model = text_encoder
        text_config = text_model.config
    config = ESIConfig.from_variant(
        model.variant,
        ecg_config={"signal_encoder": model.signal_encoder, "drop_path_rate": model.drop_path_rate},
        text_config=text_config,
        decoder_config={
            "hidden_size": model.dim,
            "num_hidden_layers": model.decoder_layers,
            "num_attention_heads": model.decoder_heads,
            "head_dim": model.decoder_head_dim,
            "vocab_size": max(len(tokenizer), text_config.vocab_size),
            "bos_token_id": first_known(tokenizer.cls_token_id, tokenizer.bos_token_id),
            "eos_token_id": first_known(tokenizer.sep_token_id, tokenizer.eos_token_id),
            "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=model.projection_dim,
        caption_loss_weight=model.caption_loss_weight,
        **({} if model.positives is None else {"positives": model.positives}),
    )
    return ESIModel(config, text_model), tokenizer


def first_known(*token_ids: int | None) -> int | None:
    return next((token_id for token_id in token_ids if token_id is not None), None)


def losses_and_gradients(
    model: nn.Module, inputs: dict[str, torch.Tensor], extra: ExtraTerms | None, training: TrainingArguments,
    accelerator: Accelerator,
) -> ESIOutput:  # fmt: skip
    """Forward and backward, of the batch at once or (GradCache) in chunks, with the same gradients."""
    seen, extra_terms = extra.of_step(inputs) if extra else (inputs, None)
    if training.contrastive_chunk_size:
        output = cached_backward(model, seen, training.contrastive_chunk_size, accelerator.backward, extra_terms)
    else:
        output = model(**seen, return_loss=True)
        if extra_terms:
            output.loss = output.loss + extra_terms(output, slice(None))
        accelerator.backward(output.loss)
    if extra:
        extra.average_gradients(accelerator)
    return output


# ---------------------------------------------------------------------------------------------------------------------
# Validation: the functions of modeling_esi/evaluation/, on this process's share, put together


def evaluate(
    model: ESIModel, processor: ESIProcessor, dataset: datasets.Dataset | None, prompts: dict[str, list[str]],
    training: TrainingArguments, accelerator: Accelerator, prefix: str,
) -> dict[str, Any]:  # fmt: skip
    """Held-out losses, retrieval and, where records have labels, zero-shot AUROC; nothing without records."""
    if dataset is None:
        return {}
    share = dataset.shard(accelerator.num_processes, accelerator.process_index, contiguous=True)
    outputs = held_out_outputs(model, processor, share, training.eval_batch_size, accelerator.device)
    if accelerator.num_processes > 1:
        parts = gather_object([outputs])
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
    scale = model.get_logit_scale().item()
    results = held_out_losses(outputs, scale, training.eval_batch, training.seed, prefix)
    results |= retrieval(outputs["ecg_embeds"], outputs["text_embeds"], outputs["text_keys"], prefix=prefix)
    if prompts and any(dataset["labels"]):
        results |= zero_shot(model, processor, dataset, prompts, ecg_embeds=outputs["ecg_embeds"], prefix=prefix)
    return results


# ---------------------------------------------------------------------------------------------------------------------
# The learning rate, and what is due after a step


def build_schedule(training: TrainingArguments, order: TrainingOrder) -> Schedule:
    return Schedule(training.schedule, order.steps_per_epoch, training.epochs, training.warmup_epochs,
                    training.decay_epochs, training.decay_factor, training.warmup_ratio)  # fmt: skip


def is_checkpoint_due(position: Position, last_step: int, training: TrainingArguments) -> bool:
    """After every `--save_steps` or else each epoch, before a validation, and at the end."""
    at_epoch_end = position.examples == 0
    by_count = position.step % training.save_steps == 0 if training.save_steps else at_epoch_end
    return by_count or position.step == last_step or is_validation_due(position, training)


def is_validation_due(position: Position, training: TrainingArguments) -> bool:
    """After every `--eval_epochs` epochs but the last."""
    is_between = position.examples == 0 and 0 < position.epoch < training.epochs
    return is_between and training.eval_epochs > 0 and position.epoch % training.eval_epochs == 0


# ---------------------------------------------------------------------------------------------------------------------
# The main path


def start_accelerator(training: TrainingArguments) -> Accelerator:
    """Processes, devices, precision, threads, and who may speak."""
    accelerator = Accelerator(
        mixed_precision=choose_precision(training.mixed_precision),
        log_with=None if training.report_to == "none" else training.report_to,
        project_dir=training.output_dir,
    )
    logging.basicConfig(level=logging.INFO if accelerator.is_main_process else logging.ERROR, format="%(message)s")
    for noisy in ("httpx", "httpx2", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if (launched := int(os.environ.get("WORLD_SIZE", 1))) != accelerator.num_processes:
        sys.exit(
            f"{launched} processes were started, but each would train alone. Without GPUs: "
            f"ACCELERATE_USE_CPU=true torchrun --nproc_per_node {launched} train_accelerate.py ..."
        )
    refuse_sharded(accelerator, weight_average=training.weight_average, alignment_weight=training.alignment_weight,
                   masked_frames_weight=training.masked_frames_weight)  # fmt: skip
    if accelerator.gradient_accumulation_steps > 1:
        sys.exit(f"gradient_accumulation_steps of accelerate: {REFUSED['gradient_accumulation_steps']}")
    set_cpu_threads(accelerator, training.cpu_threads)
    return accelerator


def tell_finished(training: TrainingArguments, accelerator: Accelerator) -> dict[str, Any]:
    """Say that there is nothing to train, and show the results again."""
    output_dir = Path(training.output_dir)
    results = json.loads((output_dir / "results.json").read_text())
    if accelerator.is_main_process:
        print(results_table(results["trained"], results["random_weights"]))
        print(f"\n{output_dir}/ is finished: it holds the model of these flags. To train it anew: "
              "--resume_from_checkpoint none")  # fmt: skip
        if training.push_to_hub:
            push_folder(output_dir, training.hub_model_id)
    accelerator.end_training()
    return results["trained"]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    accelerator = start_accelerator(arguments[-1])
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        follow_launcher()
        if accelerator.is_main_process:
            stack.enter_context(only_run_in(Path(arguments[-1].output_dir)))
        try:
            return train(*arguments, accelerator, signals)
        except ResumeError as error:
            sys.exit(str(error) if accelerator.is_main_process else 1)


def train(
    model_args: ModelArguments, data_args: DataArguments, training: TrainingArguments, accelerator: Accelerator,
    signals: StopSignals,
) -> dict[str, Any]:  # fmt: skip
    """The whole training, from its flags to the folder that it writes; returns the figures of the test split."""
    # 0. Where this run begins: at step 0, at a checkpoint, or at its end
    flags, output_dir = {**asdict(model_args), **asdict(data_args), **asdict(training)}, Path(training.output_dir)
    is_finished, checkpoint = choose_start(accelerator, flags)
    if is_finished:
        return tell_finished(training, accelerator)
    set_seed(training.seed)

    # 1. Data (the text encoder first: where it cannot be had, that is said before the long work)
    with accelerator.main_process_first():
        text_encoder = load_text_encoder(model_args.text_encoder)
        loaded = {split: load_split(data_args, split) for split in ("train", "validation", "test")}
    feature_extractor = ESIFeatureExtractor(
        sampling_rate=model_args.sampling_rate,
        duration=model_args.duration,
        scaling=model_args.scaling or VARIANT_SCALING[model_args.variant],
    )
    splits = {split: drop_rejected(dataset, feature_extractor, split) for split, (dataset, _) in loaded.items()}
    reports = {split: report for split, (_, report) in loaded.items()}
    prompts = load_prompts(data_args, splits["train"])

    # 2. Model, processor, optimizer; the order of records and the learning rate
    raw_model, tokenizer = build_model(model_args, text_encoder, splits["train"]["text"])
    raw_model = with_shared_batch_norm(raw_model, accelerator).to(accelerator.device)
    if model_args.gradient_checkpointing:
        raw_model.gradient_checkpointing_enable()
    if model_args.compile:
        compile_parts(raw_model, accelerator.device)
    processor = ESIProcessor(feature_extractor, tokenizer, max_text_length=model_args.max_text_length)
    extra = ExtraTerms.build(raw_model.config, training.masked_frames_weight, training.alignment_weight,
                             training.seed, accelerator)  # fmt: skip
    learning = nn.ModuleList([raw_model, extra]) if extra else raw_model
    model, optimizer = accelerator.prepare(raw_model, build_optimizer(learning, training.lr, training.weight_decay))
    average = WeightAverage(raw_model, training.weight_average) if training.weight_average else None
    if average:
        keep_in_checkpoints(accelerator, "weight_average", average)
    order = TrainingOrder(len(splits["train"]), training.batch_size, training.epochs, training.seed,
                          accelerator.process_index, accelerator.num_processes)  # fmt: skip
    schedule = build_schedule(training, order)

    # 3. Train
    state = begin_state(order, splits["train"]["record_id"], flags, accelerator)
    position = go_on_from(checkpoint, state, order, accelerator) if checkpoint else Position()
    last_step = max(position.step, min(order.last_step(position), training.max_steps or sys.maxsize))
    if accelerator.is_main_process:
        remove_after(output_dir, position.step)
    log = TrainingLog(accelerator, flags, state["settings"], position.step)
    watch = CollapseWatch(contrast_size(raw_model.config, order), schedule.warmup_steps)
    door = build_training_door(processor, data_args, accelerator.device)
    reader = StepReader.of(splits["train"], data_args.text_augmentation, training.seed, accelerator.process_index,
                           reads_statements=raw_model.config.positives == "entailed")  # fmt: skip
    batches = read_ahead(reader, islice(order.steps(position), last_step - position.step), data_args.num_workers)
    progress = tqdm(total=last_step, initial=position.step, disable=not accelerator.is_main_process, desc="steps")
    meter, agreement = StepMeter(), Agreement()
    model.train()
    signals.hold()
    for batch in meter.waiting(batches):
        if is_validation_due(batch.position, training):
            signals.release()  # nothing is lost: a checkpoint was just written
            with meter.paused():
                whole = whole_model(accelerator, model, raw_model, average)
                held_out = first_rows(splits["validation"], training.eval_limit)
                results = evaluate(whole, processor, held_out, prompts, training, accelerator, "validation/")
            watch.look_at_validation(results)
            log.write("validation", batch.position.step, {k: v for k, v in results.items() if isinstance(v, float)})
            if accelerator.is_main_process and results:
                progress.write(summary_line(batch.position.epoch, results))
            model.train()
            signals.hold()

        torch.manual_seed(batch.seed)
        inputs = door(batch)
        lr = training.lr * schedule.factor(order.schedule_step(batch.position))
        for group in optimizer.param_groups:
            group["lr"] = lr
        output = losses_and_gradients(model, inputs, extra, training, accelerator)
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), training.max_grad_norm or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        if average:
            average.update(raw_model)
        position = order.after(batch.position)
        progress.update()
        meter.add(inputs, output, grad_norm)

        is_logged = position.step % training.logging_steps == 0 or position.step == last_step
        is_saved = is_checkpoint_due(position, last_step, training)
        broken = is_broken(output.loss, grad_norm, scales_loss=accelerator.scaler is not None)
        agreement.send(signals.received, broken, (batch, output.loss))
        verdict = agreement.verdict(now=is_logged or is_saved)
        if verdict and verdict.broken:
            stop_at_broken_step(*verdict.broken, output_dir, accelerator)
        if is_logged:
            figures = meter.figures(raw_model, accelerator) | {"lr": lr}
            watch.look_at_loss(figures.pop("mean_contrastive_loss"), order.schedule_step(batch.position))
            log.write("train", position.step, {f"train/{name}": value for name, value in figures.items()})
            progress.set_postfix({name: f"{value:.3f}" for name, value in figures.items() if name in LOSSES})
        if is_saved or verdict:
            with meter.paused():
                state["position"] = asdict(position)
                save_checkpoint(accelerator, output_dir, state, training.save_total_limit)
        if verdict:
            stop_at_signal(verdict.signal, position.step, accelerator)
    progress.close()
    signals.release()
    model.eval()

    # 4. Judge on the held-out test split, beside the same architecture with random weights
    whole = whole_model(accelerator, model, raw_model, average)
    results = evaluate(whole, processor, splits["test"], prompts, training, accelerator, "test/")
    set_seed(training.seed)
    untrained = ESIModel(raw_model.config).to(accelerator.device).eval()
    floor = evaluate(untrained, processor, splits["test"], prompts, training, accelerator, "test/")

    # 5. Save: weights, configuration, processor, tokenizer, card; then say that all is there
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        whole.save_pretrained(output_dir)
        processor.save_pretrained(output_dir)
        (output_dir / "results.json").write_text(json.dumps({"trained": results, "random_weights": floor}, indent=2))
        facts = card_facts(flags, reports, results, floor, is_by_patient=is_split_by_patient(splits))
        write_model_card(output_dir, whole, **facts)
        write_finished(output_dir, state)
        print(results_table(results, floor))
        print(written_reports(whole, processor, splits["test"], training.num_reports))
        print(f"\nWrote {output_dir}/. After `import modeling_esi`: AutoModel.from_pretrained({training.output_dir!r})")
        if training.push_to_hub:
            push_folder(output_dir, training.hub_model_id)
    accelerator.end_training()
    return results


if __name__ == "__main__":
    main()

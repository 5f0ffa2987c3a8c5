"""Train ESI: raw ECGs and their texts in, a Hugging Face model folder out. Read it top to bottom.

    accelerate launch train_accelerate.py                                       # the demo (recipes/demo.yaml)
    accelerate launch train_accelerate.py --config recipes/ptb_xl.yaml --data_dir physionet.org/files/ptb-xl/1.0.3
    accelerate launch train_accelerate.py --config recipes/demo.yaml --epochs 2 --output_dir esi-try
    accelerate launch train_accelerate.py --config recipes/demo.yaml --resume_from_checkpoint latest

A recipe is a YAML file of the flags below; flags on the command line override it. `docs/training.md` explains each flag
and maps the authors' script onto this one.
"""

import json
import logging
import math
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from huggingface_hub import HfApi
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer, HfArgumentParser, PreTrainedModel, PreTrainedTokenizerBase

from datasets_scripts import LoadReport, label_prompts, load_ecg_dataset_with_report
from datasets_scripts.loading import NoRecordsError
from datasets_scripts.preparation.record_reader import RecordReader
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import augment_text
from modeling_esi import ESIConfig, ESIFeatureExtractor, ESIModel, ESIOutput, ESIProcessor
from modeling_esi.configuration_esi import VARIANT_SCALING
from modeling_esi.evaluation.door_check import refused_rows
from modeling_esi.evaluation.embedding import read_records
from modeling_esi.evaluation.held_out_losses import held_out_losses, held_out_outputs, key_numbers
from modeling_esi.evaluation.retrieval import retrieval
from modeling_esi.evaluation.zero_shot import zero_shot
from modeling_esi.hub import push_folder, write_model_card
from modeling_esi.training.augmentation import jitter_and_gain
from modeling_esi.training.text_from_scratch import small_bert_config, train_tokenizer

logger = logging.getLogger("train_accelerate")
HERE = Path(__file__).resolve().parent
FETCH_TIMEOUT = 10  # seconds for a text encoder's first answer, so that a machine without network fails soon
TextEncoder = tuple[PreTrainedTokenizerBase, PreTrainedModel]

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
    sampling_rate: float = field(default=500.0, metadata={"help": "Hz that the model sees"})
    duration: float = field(default=10.0, metadata={"help": "seconds that the model sees"})
    scaling: str | None = field(default=None, metadata={"help": "fixed, record, lead or none; default: the variant's"})
    max_text_length: int = field(default=500, metadata={"help": "tokens after which a text is cut"})
    scratch_vocab_size: int = field(default=1000, metadata={"help": "WordPieces of --text_encoder scratch"})
    scratch_layers: int = field(default=2, metadata={"help": "layers of --text_encoder scratch"})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "trade time for memory"})


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
    jitter: float = field(default=0.003, metadata={"help": "mV of noise on every sample in training"})
    gain_jitter: float = field(default=0.003, metadata={"help": "relative gain noise on every lead in training"})
    num_workers: int = field(default=0, metadata={"help": "processes that read records; 0 often wins on few cores"})


@dataclass
class TrainingArguments:
    """How it is trained."""

    output_dir: str = field(default="esi-ecg", metadata={"help": "the final folder; checkpoints stand in it meanwhile"})
    lr: float = field(default=5e-5, metadata={"help": "peak learning rate"})
    batch_size: int = field(default=8, metadata={"help": "records on each process"})
    epochs: int = field(default=30, metadata={"help": "passes over the training split"})
    max_steps: int | None = field(default=None, metadata={"help": "stop after so many; the schedule stays"})
    schedule: str = field(default="warmup_step_decay", metadata={"help": "warmup_step_decay, linear or cosine"})
    warmup_epochs: float = field(default=5.0, metadata={"help": "warm-up of warmup_step_decay"})
    decay_epochs: float = field(default=10.0, metadata={"help": "epochs between decays of warmup_step_decay"})
    decay_factor: float = field(default=0.1, metadata={"help": "factor of each decay of warmup_step_decay"})
    warmup_ratio: float = field(default=0.1, metadata={"help": "share of the steps, warm-up of linear and cosine"})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's, on matrices only"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "clip gradients at this norm; 0 never"})
    mixed_precision: str | None = field(default=None, metadata={"help": "no, fp16, bf16; default: accelerate's config"})
    cpu_threads: int | None = field(default=None, metadata={"help": "threads on a CPU; default: its cores, shared out"})
    seed: int = field(default=42, metadata={"help": "the same seed gives the same weights"})
    eval_batch_size: int = field(default=64, metadata={"help": "records at once in validation"})
    eval_epochs: int = field(default=1, metadata={"help": "validate after every so many epochs"})
    eval_limit: int | None = field(default=None, metadata={"help": "validate on at most so many records in training"})
    eval_batch: int = field(default=48, metadata={"help": "batch over which held-out contrastive loss is computed"})
    save_steps: int | None = field(
        default=None, metadata={"help": "checkpoint every so many steps; default each epoch"}
    )
    save_total_limit: int = field(default=2, metadata={"help": "checkpoints kept"})
    resume_from_checkpoint: str | None = field(default=None, metadata={"help": "a checkpoint folder, or 'latest'"})
    report_to: str = field(default="none", metadata={"help": "none, tensorboard, trackio or wandb"})
    num_reports: int = field(default=3, metadata={"help": "generated reports shown at the end"})
    push_to_hub: bool = field(default=False, metadata={"help": "upload the final folder"})
    hub_model_id: str | None = field(default=None, metadata={"help": "name/repository on the Hub"})
    license: str | None = field(default=None, metadata={"help": "licence of the weights, for the card; needed to push"})


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """Flags over the recipe of `--config`; a bare call is the demo."""
    if any(flag.split("=")[0] == "--gpu_ids" for flag in argv):
        sys.exit("--gpu_ids: choose devices where processes start: accelerate launch --gpu_ids 0,1 train_accelerate.py")
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    parser.add_argument("--config", help="recipe, a YAML file of flags")
    config = parser.parse_known_args(argv)[0].config if argv else "recipes/demo.yaml"
    if config is not None:
        recipe, known = read_recipe(config), {action.dest for action in parser._actions}
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
    if training.push_to_hub and not (training.hub_model_id and training.license):
        sys.exit("--push_to_hub needs --hub_model_id name/repository and --license (the weights' and their data's).")
    return model, data, training


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe at `path`, seen from here or from this script's folder."""
    candidates = [Path(path), HERE / path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        sys.exit(f"--config: no file {path}; recipes stand in {HERE / 'recipes'}.")
    return yaml.safe_load(found.read_text()) or {}


# ---------------------------------------------------------------------------------------------------------------------
# Data: rows, their order, and what a step makes of them


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


def load_prompts(data: DataArguments, train: datasets.Dataset) -> dict[str, list[str]]:
    """Texts for every label, for zero-shot validation; empty where records have no labels."""
    if not any(train["labels"]):
        return {}
    options = {"data_dir": data.data_dir} if data.data_dir else {}
    if "task" in data.dataset_options:
        options["task"] = data.dataset_options["task"]
    return label_prompts(data.dataset, **options)


def epoch_batches(num_records: int, batch_size: int, epoch: int, seed: int, rank: int, world: int) -> list[list[int]]:
    """This process's batches of one epoch. The order depends on seed and epoch alone; the last odd batch is dropped."""
    order = np.random.default_rng([seed, epoch]).permutation(num_records)
    per_step = batch_size * world
    starts = range(rank * batch_size, num_records - num_records % per_step, per_step)
    return [order[start : start + batch_size].tolist() for start in starts]


def prepare_step(
    records: list[ECGRecord], keys: np.ndarray, processor: ESIProcessor, data: DataArguments, rng: np.random.Generator,
    device: torch.device,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Model inputs of a training batch: random crop, augmented signal and text, on the device."""
    texts = [augment_text(record, rng) if data.text_augmentation else record.text for record in records]
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    augment = jitter_and_gain(data.jitter, data.gain_jitter) if data.jitter or data.gain_jitter else None
    inputs = processor(records, texts, crop="random", generator=generator, augment=augment, device=device)
    return {**inputs, "text_key": torch.from_numpy(keys).to(device)}


# ---------------------------------------------------------------------------------------------------------------------
# Model and schedule


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
    )
    return ESIModel(config, text_model), tokenizer


def first_known(*token_ids: int | None) -> int | None:
    return next((token_id for token_id in token_ids if token_id is not None), None)


def load_text_encoder(name: str) -> TextEncoder | None:
    """Tokenizer and weights from a folder, the cache or the Hub; `None` for "scratch"; a plain exit else, and soon."""
    if name == "scratch":
        return None
    try:
        try:
            return _load_text_encoder(name, local_files_only=True)
        except OSError:
            HfApi().model_info(name, timeout=FETCH_TIMEOUT)  # answers at once where there is no network
            return _load_text_encoder(name)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        sys.exit(
            f"--text_encoder {name}: cannot be loaded ({type(error).__name__}: {reason}).\n"
            f"On a machine with network: hf download {name} --local-dir {Path(name).name}\n"
            f"then copy that folder here and pass --text_encoder {Path(name).name}; or train one: "
            "--text_encoder scratch"
        )


def _load_text_encoder(name: str, **options: Any) -> TextEncoder:
    return AutoTokenizer.from_pretrained(name, **options), AutoModel.from_pretrained(name, **options)


def lr_factor(step: int, training: TrainingArguments, steps_per_epoch: int, total_steps: int) -> float:
    """Share of the peak learning rate at optimizer step `step`, counted from 0."""
    if training.schedule not in ("warmup_step_decay", "linear", "cosine"):
        raise ValueError(f"--schedule: expected warmup_step_decay, linear or cosine, got {training.schedule!r}.")
    by_epochs = training.schedule == "warmup_step_decay"
    warmup = training.warmup_epochs * steps_per_epoch if by_epochs else training.warmup_ratio * total_steps
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    if by_epochs:
        return training.decay_factor ** ((step - warmup) // (training.decay_epochs * steps_per_epoch))
    progress = min(1.0, (step - warmup) / max(1.0, total_steps - warmup))
    return 1.0 - progress if training.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def build_optimizer(model: ESIModel, training: TrainingArguments) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices, not on norms, biases and the logit scale."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.lr)


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
# Checkpoints


def save_checkpoint(accelerator: Accelerator, training: TrainingArguments, step: int) -> None:
    """Everything a later process needs to go on. The folder gets its name when it is whole."""
    folder = Path(training.output_dir) / f"checkpoint-{step}"
    unfinished = folder.with_name(f"unfinished-{step}")
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = {"step": step, "num_processes": accelerator.num_processes, "batch_size": training.batch_size}
        (unfinished / "training_state.json").write_text(json.dumps(state))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        for old in checkpoints(training)[: -training.save_total_limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def checkpoints(training: TrainingArguments) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = Path(training.output_dir).glob("checkpoint-*/training_state.json")
    return sorted((path.parent for path in found), key=lambda path: int(path.name.split("-")[1]))


def log_step(accelerator: Accelerator, output: ESIOutput, lr: float, step: int, progress: tqdm) -> None:
    """Progress bar and trackers; on the main process only."""
    if step % 10 and step != progress.total:
        return
    names = ("loss", "contrastive_loss", "caption_loss")
    values = {name: output[name].item() for name in names if output.get(name) is not None}
    progress.set_postfix({name: f"{value:.3f}" for name, value in values.items()})
    accelerator.log({f"train/{name}": value for name, value in values.items()} | {"train/lr": lr}, step=step)


def load_checkpoint(accelerator: Accelerator, training: TrainingArguments) -> int:
    """Load `--resume_from_checkpoint` and return the steps it has done; 0 where 'latest' finds none."""
    if training.resume_from_checkpoint is None:
        return 0
    if training.resume_from_checkpoint == "latest":
        found = checkpoints(training)
        if not found:
            logger.info("No checkpoint in %s yet: starting from step 0.", training.output_dir)
            return 0
        folder = found[-1]
    else:
        folder = Path(training.resume_from_checkpoint)
    if not (folder / "training_state.json").is_file():
        sys.exit(f"--resume_from_checkpoint: {folder} is not a whole checkpoint (no training_state.json in it).")
    state = json.loads((folder / "training_state.json").read_text())
    now = {"num_processes": accelerator.num_processes, "batch_size": training.batch_size}
    if changed := {name: (state[name], value) for name, value in now.items() if state[name] != value}:
        sys.exit(f"--resume_from_checkpoint: {folder} was written with other settings (then, now): {changed}.")
    accelerator.load_state(str(folder))
    logger.info("Resumed from %s.", folder)
    return state["step"]


# ---------------------------------------------------------------------------------------------------------------------
# What is said at the end


def summary_line(epoch: int, results: dict[str, Any]) -> str:
    shown = ("contrastive_excess", "ln_batch", "caption_loss", "ecg_to_text/recall@1", "macro_auroc")
    found = {name: results.get(f"validation/{name}") for name in shown}
    return f"epoch {epoch}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items() if value is not None)


def print_results(results: dict[str, Any], floor: dict[str, Any]) -> None:
    """Held-out figures beside those of random weights."""
    print(f"\n{'held-out test split':<52}{'trained':>10}{'random':>10}")
    for name, value in results.items():
        if isinstance(value, float) and not name.startswith("test/num_"):
            beside = floor.get(name)
            print(f"{name.removeprefix('test/'):<52}{value:>10.3f}{'' if beside is None else f'{beside:>10.3f}'}")


def print_reports(model: ESIModel, processor: ESIProcessor, dataset: datasets.Dataset | None, num_reports: int) -> None:
    """Generated reports beside the true ones."""
    can_write = model.decoder is not None and model.config.decoder_config.input_states == "token_embeddings"
    if dataset is None or num_reports < 1 or not can_write:
        return
    records = read_records(dataset, range(min(num_reports, len(dataset))))
    inputs = processor.feature_extractor(records, device=model.device)
    written = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)
    for record, text in zip(records, written, strict=True):
        print(f"\n{record.record_id}\n  true:      {record.text}\n  generated: {text}")


def card_facts(
    model_args: ModelArguments, data_args: DataArguments, training: TrainingArguments,
    reports: dict[str, LoadReport], results: dict[str, Any], floor: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """What the model card says of this training."""
    if training.license is None:
        logger.warning("--license: none given; the card says 'other'. A card's licence follows the weights and data.")
    counts = ", ".join(f"{report.num_kept:,} {split}" for split, report in reports.items() if report)
    return {
        "license": training.license or "other",
        "training_data": f"{reports['train'].name}: {counts} records, split by patient.",
        "base_model": None if model_args.text_encoder == "scratch" else model_args.text_encoder,
        "results": {
            "trained": results,
            "random_weights": floor,
            "dataset": reports["train"].name,
            "protocol": "zero-shot by cosine to averaged prompts, retrieval and losses on the held-out test split",
            "seen_in_training": False,
        },
        "text_is_label_supervised": reports["train"].text_is_label_supervised,
        "recipe": {**asdict(model_args), **asdict(data_args), **asdict(training)},
    }


# ---------------------------------------------------------------------------------------------------------------------
# The main path


def cpu_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: list[str] | None = None) -> dict[str, Any]:
    model_args, data_args, training = parse_arguments(sys.argv[1:] if argv is None else argv)
    accelerator = Accelerator(
        mixed_precision=training.mixed_precision,
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
    set_seed(training.seed)
    if accelerator.device.type == "cpu":  # `accelerate launch` leaves one thread to each process
        torch.set_num_threads(training.cpu_threads or max(1, cpu_cores() // accelerator.num_processes))

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
    train, reports = splits["train"], {split: report for split, (_, report) in loaded.items()}
    prompts = load_prompts(data_args, train)

    # 2. Model, processor, optimizer, schedule
    model, tokenizer = build_model(model_args, text_encoder, train["text"])
    processor = ESIProcessor(feature_extractor, tokenizer, max_text_length=model_args.max_text_length)
    if model_args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    steps_per_epoch = len(train) // (training.batch_size * accelerator.num_processes)
    if steps_per_epoch == 0:
        sys.exit(
            f"--batch_size: {len(train)} training records do not fill one batch of {training.batch_size} per process."
        )
    total_steps = training.epochs * steps_per_epoch
    last_step = min(total_steps, training.max_steps or total_steps)
    raw_model = model
    model, optimizer = accelerator.prepare(model, build_optimizer(model, training))
    if accelerator.log_with:
        settings = {**asdict(model_args), **asdict(data_args), **asdict(training)}
        accelerator.init_trackers("esi-ecg", {k: v for k, v in settings.items() if isinstance(v, int | float | str)})

    # 3. Train
    validation = splits["validation"]
    if validation is not None and training.eval_limit:
        validation = validation.select(range(min(len(validation), training.eval_limit)))
    reader, train_keys = RecordReader(train), key_numbers(train["text_key"])
    step = load_checkpoint(accelerator, training)
    progress = tqdm(total=last_step, initial=step, disable=not accelerator.is_main_process, desc="steps")
    results: dict[str, Any] = {}
    model.train()
    while step < last_step:
        epoch, done = divmod(step, steps_per_epoch)
        batches = epoch_batches(
            len(train), training.batch_size, epoch, training.seed, accelerator.process_index, accelerator.num_processes
        )[done:]
        loader = DataLoader(
            batches, batch_size=None, num_workers=data_args.num_workers,
            collate_fn=lambda indices: (reader.records(indices), train_keys[indices]),
        )  # fmt: skip
        for records, keys in loader:
            # Every step draws from a seed of its own, so that a resumed run repeats it exactly.
            rng = np.random.default_rng([training.seed, step, accelerator.process_index])
            torch.manual_seed(int(rng.integers(2**62)))
            lr = training.lr * lr_factor(step, training, steps_per_epoch, total_steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            inputs = prepare_step(records, keys, processor, data_args, rng, accelerator.device)
            output = model(**inputs, return_loss=True)
            accelerator.backward(output.loss)
            if training.max_grad_norm:
                accelerator.clip_grad_norm_(model.parameters(), training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            progress.update()
            log_step(accelerator, output, lr, step, progress)
            is_due = step % training.save_steps == 0 if training.save_steps else step % steps_per_epoch == 0
            if (is_due or step == last_step) and step < total_steps:
                save_checkpoint(accelerator, training, step)
            if step == last_step:
                break
        if step < last_step and (step // steps_per_epoch) % training.eval_epochs == 0:
            results = evaluate(raw_model, processor, validation, prompts, training, accelerator, "validation/")
            accelerator.log({k: v for k, v in results.items() if isinstance(v, float)}, step=step)
            progress.write(summary_line(step // steps_per_epoch, results))
            model.train()
    progress.close()
    model.eval()

    # 4. Judge on the held-out test split, beside the same architecture with random weights
    test = splits["test"]
    results = evaluate(raw_model, processor, test, prompts, training, accelerator, "test/")
    set_seed(training.seed)
    untrained = ESIModel(raw_model.config).to(accelerator.device).eval()
    floor = evaluate(untrained, processor, test, prompts, training, accelerator, "test/")

    # 5. Save: weights, configuration, processor, tokenizer, card
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        output_dir = Path(training.output_dir)
        raw_model.save_pretrained(output_dir)
        processor.save_pretrained(output_dir)
        (output_dir / "results.json").write_text(json.dumps({"trained": results, "random_weights": floor}, indent=2))
        write_model_card(output_dir, raw_model, **card_facts(model_args, data_args, training, reports, results, floor))
        print_results(results, floor)
        print_reports(raw_model, processor, test, training.num_reports)
        print(f"\nWrote {output_dir}/. After `import modeling_esi`: AutoModel.from_pretrained({training.output_dir!r})")
        if training.push_to_hub:
            push_folder(output_dir, training.hub_model_id)
    accelerator.end_training()
    return results


if __name__ == "__main__":
    main()

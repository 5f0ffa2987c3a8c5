"""The model card, made from facts only: what is passed in, what is read from the model and from the files beside it.

What nobody stated is said to be missing. No path of the machine on which the card is made enters it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel

from .card_results import (
    LABEL_SUPERVISED,
    NOT_STATED,
    Results,
    as_list,
    eval_results,
    result_list,
    results_text,
    table,
    without_paths,
)
from .pipeline_esi import pipelines_of

CARD_NAME = "README.md"
PAPER = "https://arxiv.org/abs/2405.19366"
TAGS = ("ecg", "electrocardiogram", "biosignal", "medical", "esi")
_MODEL_ID_LINE = 'model_id = "{}"  # this folder, or its name on the Hub'


def write_model_card(
    folder: str | os.PathLike[str],
    model: PreTrainedModel,
    *,
    license: str,
    training_data: str,
    base_model: str | Sequence[str] | None = None,
    results: Results | Sequence[Results] | None = None,
    text_is_label_supervised: bool = False,
    recipe: Mapping[str, Any] | str | None = None,
    data_licenses: Mapping[str, str] | str | None = None,
    language: str | Sequence[str] | None = None,
) -> Path:
    """Write `README.md` with its metadata beside a saved model.

    Args:
        folder: where the model was saved; the processor, if it is there too, is described.
        model: `ESIModel`, `ESIEcgModel` or `ESIForECGClassification`; sizes and variant are read from it.
        license: the Hub's identifier (https://huggingface.co/docs/hub/repositories-licenses), such as "gpl-3.0" or
            "cc-by-4.0". It follows the weights and the data they were trained on, not the code.
        training_data: which records, how many, how split.
        base_model: what the weights started from (a text encoder, an ESI). Hub identifiers enter the metadata; local
            folders do not.
        results: one or more, each with `trained` (flat keys of an evaluator) and, as far as known, `random_weights`
            (the same, of an untrained model: the floor), `dataset`, `protocol`, `task_type`, `seen_in_training` (bool).
            An interval is taken from the keys that end in `_low` and `_high`.
        text_is_label_supervised: whether training texts were made from labels.
        recipe: settings of the training.
        data_licenses: licence of each data set, or a sentence.
        language: of the training texts, as ISO 639-1 codes.

    Returns:
        The path of the card.

    Raises:
        ValueError: for an empty licence or one that is no identifier, or a result without `trained`.
    """
    folder = Path(folder)
    results = result_list(results)
    name = folder.resolve().name
    training_data = without_paths(training_data)
    sections = {
        "What it is": _what_it_is(model, text_is_label_supervised),
        "How to use": _how_to_use(model, name),
        "Architecture": _architecture(model),
        "Input": _input(folder),
        "Training data": _training_data(training_data, data_licenses, base_model),
        "Training recipe": _recipe(recipe),
        "Results": results_text(results, training_data, text_is_label_supervised),
        "Intended use and limits": _limits(model),
        "Weights": weights_text(folder),
        "Licence": license_text(check_license(license)),
        "Citation": _CITATION,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    data = _metadata(model, name, license, base_model, results, language)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n{body}\n")
    folder.mkdir(parents=True, exist_ok=True)
    card.save(folder / CARD_NAME)
    return folder / CARD_NAME


def _metadata(
    model: PreTrainedModel, name: str, license: str, base_model: Any, results: list[Results], language: Any
) -> ModelCardData:
    classifies = _is_classifier(model)
    tags = [*TAGS, *(["ecg-classification"] if classifies else [])]
    if _has_text(model):
        tags += ["contrastive-learning", "zero-shot-classification"]
    if _can_write(model):
        tags += ["report-generation"]
    ids = [base for base in as_list(base_model) if is_hub_id(base)]
    return ModelCardData(
        license=check_license(license),
        library_name="transformers",
        pipeline_tag=None if classifies else "feature-extraction",
        tags=tags,
        language=as_list(language) or None,
        base_model=(ids[0] if len(ids) == 1 else ids) or None,
        model_name=name,
        eval_results=[entry for result in results for entry in eval_results(result)] or None,
    )


def check_license(license: str) -> str:
    """A licence as the Hub writes it, in lower case. Raises ValueError where it is empty or no identifier."""
    identifier = (license or "").strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", identifier):
        raise ValueError(
            f"license: expected the Hub's identifier of the licence of these weights, such as 'cc-by-4.0' or "
            f"'gpl-3.0', got {license!r}. It follows the weights and their data, not the code; 'other' exists too."
        )
    return identifier


def weight_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of weights in a folder, by name."""
    hashes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def hashes_in(card: str) -> dict[str, str]:
    """The hashes that a card names, as `weight_hashes` gives them; empty where it names none."""
    return dict(re.findall(r"^\| `([^`|]+\.safetensors)` \| `([0-9a-f]{64})` \|$", card, re.MULTILINE))


def weights_text(folder: Path) -> str:
    """The section on the weights: which files this card describes."""
    hashes = weight_hashes(folder)
    if not hashes:
        return "Which weights this card describes is not stated: none were there when it was written."
    rows = ((f"`{name}`", f"`{digest}`") for name, digest in hashes.items())
    return f"This card describes these weights, and no others:\n\n{table(['file', 'SHA-256'], rows)}"


def is_hub_id(name: Any) -> bool:
    """Whether a name can be one on the Hub, and is no folder of this machine."""
    if not isinstance(name, str) or not name or Path(name).expanduser().exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def named(card: str, folder_name: str, repo_id: str) -> str:
    """A card whose code, title and metadata name the repository instead of the folder it was written in."""
    code = re.escape(_MODEL_ID_LINE).replace(re.escape("{}"), '[^"\n]*')
    card = re.sub(code, lambda _: _MODEL_ID_LINE.format(repo_id), card)
    name, old = repo_id.rpartition("/")[2], re.escape(folder_name)
    card = re.sub(rf"^# {old}$", lambda _: f"# {name}", card, count=1, flags=re.MULTILINE)
    return re.sub(rf"^(model-index:\n- name: ){old}$", lambda found: found[1] + name, card, count=1, flags=re.MULTILINE)


# ----- what is read from the model -----------------------------------------------------------------------------------


def _is_classifier(model: PreTrainedModel) -> bool:
    return hasattr(model, "classifier")


def _has_text(model: PreTrainedModel) -> bool:
    return hasattr(model, "text_model")


def _can_write(model: PreTrainedModel) -> bool:
    has_decoder = getattr(model, "decoder", None) is not None
    return has_decoder and model.config.decoder_config.input_states == "token_embeddings"


def _what_it_is(model: PreTrainedModel, text_is_label_supervised: bool) -> str:
    parts = [f"A 12-lead ECG model of the ESI family ([ECG Semantic Integrator]({PAPER})), class `{_class(model)}`."]
    if _has_text(model):
        parts.append("It puts ECGs and cardiological texts into one space, where cosine similarity compares them.")
    if _can_write(model):
        parts.append("Its decoder writes a report from an ECG.")
    if _is_classifier(model):
        labels = [str(label) for _, label in sorted(model.config.id2label.items())]
        parts.append(f"It classifies an ECG into {len(labels)} labels: {', '.join(labels)}.")
    warning = f"\n\n> **Label-supervised text.** {LABEL_SUPERVISED}" if text_is_label_supervised else ""
    return " ".join(parts) + warning


def _class(model: PreTrainedModel) -> str:
    return type(model).__name__


def _architecture(model: PreTrainedModel) -> str:
    rows = dict(_architecture_facts(model))
    rows["parameters"] = f"{model.num_parameters():,}"
    for part, module in model.named_children():
        rows[f"of these `{part}`"] = f"{sum(parameter.numel() for parameter in module.parameters()):,}"
    text = table(["", ""], rows.items())
    variant = getattr(model.config, "variant", None)
    return text if variant is None else f"{text}\n\n**Variant `{variant}`**: {_VARIANTS[variant]}"


def _architecture_facts(model: PreTrainedModel) -> Iterator[tuple[str, str]]:
    config = model.config
    ecg = getattr(config, "ecg_config", config)
    yield "ECG encoder", f"{ecg.signal_encoder or 'custom size'} ({ecg.encoder_type}), one-dimensional"
    yield "blocks and widths of its stages", f"{list(ecg.depths)}, {list(ecg.hidden_sizes)}"
    yield "width of the pooled ECG", str(ecg.hidden_size)
    yield "norm in stem and downsampling", ecg.norm_type
    if not _has_text(model):
        return
    text = config.text_config
    sizes = (f"{name} {getattr(text, name)}" for name in _TEXT_SIZES if getattr(text, name, None) is not None)
    yield "text encoder", f"{text.model_type}: {', '.join(sizes)}"
    yield "shared embedding", f"{config.projection_dim} wide, L2-normalised"
    if model.decoder is not None:
        decoder = config.decoder_config
        yield (
            "caption decoder",
            f"{decoder.num_hidden_layers} layers, {decoder.hidden_size} wide, reads {decoder.input_states}, "
            f"sees the ECG as {decoder.ecg_context}",
        )


_TEXT_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def _input(folder: Path) -> str:
    """What the saved feature extractor does, read from the folder."""
    found = _read_feature_extractor(folder)
    if found is None:
        return (
            "How the signals were prepared is not stated: no feature extractor lay beside the weights when this card "
            "was written. If there is one now, its settings are in `processor_config.json` or "
            "`preprocessor_config.json`."
        )
    rows = {name: found[name] for name in _INPUT_FACTS if name in found}
    rows["leads"] = ", ".join(found.get("leads", []))
    text = "Any record in mV with its sampling rate and lead names; the processor saved here brings it to:"
    return f"{text}\n\n{table(['', ''], ((name, str(value)) for name, value in rows.items()))}"


_INPUT_FACTS = ("sampling_rate", "duration", "leads", "scaling", "fixed_scale_mv", "fixed_clip_mv")


def _read_feature_extractor(folder: Path) -> dict[str, Any] | None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
            settings = settings.get("feature_extractor", settings)
            if "sampling_rate" in settings:
                return settings
    return None


# ----- what was passed in --------------------------------------------------------------------------------------------


def _training_data(training_data: str, data_licenses: Mapping[str, str] | str | None, base_model: Any) -> str:
    parts = [training_data.strip() or "The training data are not stated."]
    if isinstance(data_licenses, Mapping):
        parts.append(table(["data", "licence"], ((k, without_paths(v)) for k, v in data_licenses.items())))
    else:
        parts.append(f"Licences of the data: {without_paths(data_licenses or NOT_STATED)}")
    bases = [f"`{base}`" if is_hub_id(base) else "a local folder, whose origin is not stated"
             for base in as_list(base_model)]  # fmt: skip
    parts.append(f"Started from: {', '.join(bases) or NOT_STATED}.")
    return "\n\n".join(parts)


def _recipe(recipe: Mapping[str, Any] | str | None) -> str:
    if not recipe:
        return "The training recipe is not stated."
    if isinstance(recipe, str):
        return without_paths(recipe)
    given = ((name, without_paths(value)) for name, value in recipe.items() if value is not None)
    return table(["setting", "value"], given)


def _limits(model: PreTrainedModel) -> str:
    lines = [
        "**Not a medical device.** No clearance and no clinical validation are stated here, and none must be assumed. "
        "Decisions about a patient belong to a clinician who has read the ECG.",
        "Intended use: research on ECGs: embeddings, search, and a starting point for training on one's own data. "
        "Out of scope: unattended use in care, and recognising persons without their consent.",
        "Results on records of other devices, populations, lead sets, sampling rates or filters are "
        "only those stated above, if any. Subgroups (age, sex, device) have to be checked before use.",
    ]
    if _can_write(model):
        lines.append("Generated reports can be fluent and wrong.")
    elif getattr(model, "decoder", None) is not None:
        lines.append("The decoder of this variant cannot write reports: in training it saw the words to be written.")
    return "\n\n".join(lines)


def license_text(license: str) -> str:
    """The section on the licence."""
    named = "`other`: which one is not stated; ask before using the weights" if license == "other" else f"`{license}`"
    return f"{named}. This is the licence of the weights, which follows them and their data; the code is Apache-2.0."


# ----- words ---------------------------------------------------------------------------------------------------------

_VARIANTS = {
    "esi": "this project's default: LayerNorm over channels (BatchNorm in an XResNet), a decoder that sees the "
    "encoder's frames and only earlier words, negatives of all processes, padding masked.",
    "released": "computes what the authors' published weights were trained with: norms over time (BatchNorm in an "
    "XResNet), one pooled vector for the decoder, whose input has seen the words to be predicted.",
    "custom": "fields of the configuration match neither named variant; see `config.json`.",
}
_CITATION = """```bibtex
@article{yu2024esi,
  title   = {{ECG} Semantic Integrator ({ESI}): A Foundation {ECG} Model Pretrained with {LLM}-Enhanced Cardiological Text},
  author  = {Yu, Han and Guo, Peikun and Sano, Akane},
  journal = {Transactions on Machine Learning Research},
  year    = {2024},
  url     = {https://arxiv.org/abs/2405.19366}
}
```"""  # noqa: E501


def _how_to_use(model: PreTrainedModel, name: str) -> str:
    auto = "AutoModelForSequenceClassification" if _is_classifier(model) else "AutoModel"
    door = ("AutoProcessor", "processor") if _has_text(model) else ("AutoFeatureExtractor", "feature_extractor")
    code = _LOAD.format(line=_MODEL_ID_LINE.format(name), auto=auto, auto_door=door[0], door=door[1])
    if _has_text(model):
        code += _COMPARE + (_WRITE if _can_write(model) else "")
    else:
        code += _CLASSIFY if _is_classifier(model) else _EMBED
    return f"```python\n{code.strip()}\n```\n\n{_pipelines(model)}\n\n{_WITH_PACKAGE}"


def _pipelines(model: PreTrainedModel) -> str:
    if not (tasks := list(pipelines_of(model))):
        return "No pipeline of transformers is registered for this class."
    named = f"`{tasks[0]}`" + (f" (others: {', '.join(f'`{task}`' for task in tasks[1:])})" if tasks[1:] else "")
    more = _LABELS if _has_text(model) else ""
    code = _PIPELINE.format(task=tasks[0], more=more).strip()
    return f"Or as a pipeline of transformers, {named}, after the lines above:\n\n```python\n{code}\n```"


_LOAD = """
import numpy as np
import torch
from transformers import {auto}, {auto_door}

{line}
model = {auto}.from_pretrained(model_id, trust_remote_code=True).eval()
{door} = {auto_door}.from_pretrained(model_id, trust_remote_code=True)

signal = np.random.default_rng(0).normal(size=(12, 5000))  # put your record here: (leads, samples) in mV
leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]  # in the order of its rows
inputs = {door}(signal, sampling_rate=500, leads=leads)
"""
_PIPELINE = """
from transformers import pipeline

ask = pipeline("{task}", model=model_id, trust_remote_code=True)
print(ask({{"signal": signal, "sampling_rate": 500, "leads": leads}}{more}))
"""
_LABELS = ', candidate_labels=["sinus rhythm", "left bundle branch block"]'
_COMPARE = """texts = processor(text=["sinus rhythm", "left bundle branch block"])
with torch.no_grad():
    ecg_embeds = model.get_ecg_features(**inputs)
    text_embeds = model.get_text_features(**texts)
print(ecg_embeds @ text_embeds.T)  # cosine similarities
"""
_WRITE = "print(processor.batch_decode(model.generate(**inputs, max_new_tokens=64), skip_special_tokens=True))\n"
_CLASSIFY = """with torch.no_grad():
    logits = model(**inputs).logits[0]
print(dict(zip(model.config.id2label.values(), logits.sigmoid().tolist())))
"""
_EMBED = """with torch.no_grad():
    print(model(**inputs).pooler_output.shape)
"""
_WITH_PACKAGE = (
    "With the package esi-ecg installed, put `import modeling_esi` first and leave `trust_remote_code=True` out: no "
    "code of the repository runs then."
)

"""Turn the authors' published weights into a folder that `AutoModel` and `AutoProcessor` load.

    python -m modeling_esi.convert_released_checkpoint \
        --checkpoint esi.safetensors --text_encoder michiyasunaga/BioLinkBERT-base --output esi-released

The encoder, its size and every other size are read off the tensors. The published weights are under GPL-3.0, and so is
what this makes of them: a card's licence follows the weights.
"""

import argparse
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from .configuration_esi import ENCODER_PRESETS, LEADS, MIMIC_LEADS, ESIConfig, ESIEcgConfig
from .modeling_esi import ESIEcgModel, ESIModel

logger = logging.getLogger(__name__)

LEAD_ORDERS = {"mimic": MIMIC_LEADS, "standard": LEADS}
#: Tensors that stand in published files and that no output depends on.
UNUSED = (
    r"img_attn_pool\.",
    r"text_cls_norm\.",
    r"img_encoder\.head\.",
    r"(unimodal_layers|pretrained_text_encoder)\.(pooler\.|embeddings\.(position_ids|token_type_ids)$)",
    r".*\.inv_freq$",
)
#: Published name (regular expression) to ours. Text encoder tensors keep their own names behind the prefix.
RENAMES = (
    (r"temperature$", "logit_scale"),
    (r"img_token_head\.", "ecg_head."),
    (r"img_attn_pool_norm\.gamma$", "ecg_norm.weight"),
    (r"img_to_latents\.to_latents\.", "ecg_projection."),
    (r"text_to_latents\.to_latents\.", "text_projection."),
    (r"(?:unimodal_layers|pretrained_text_encoder)\.", "text_model."),
    (r"img_encoder\.downsample_layers\.0\.0\.", "ecg_model.encoder.downsamples.0.conv."),
    (r"img_encoder\.downsample_layers\.0\.1\.", "ecg_model.encoder.downsamples.0.norm."),
    (r"img_encoder\.downsample_layers\.(\d)\.0\.", r"ecg_model.encoder.downsamples.\1.norm."),
    (r"img_encoder\.downsample_layers\.(\d)\.1\.", r"ecg_model.encoder.downsamples.\1.conv."),
    (r"img_encoder\.(stages\.|norm\.)", r"ecg_model.encoder.\1"),
    (r"img_encoder\.([012])\.0\.", r"ecg_model.encoder.stem.\1.conv."),
    (r"img_encoder\.([012])\.1\.", r"ecg_model.encoder.stem.\1.norm."),
    (r"multimodal_layers\.(\d+)\.0\.fn\.norm\.gamma$", r"decoder.layers.\1.causal_step.norm.weight"),
    (r"multimodal_layers\.(\d+)\.0\.fn\.fused_attn_ff_proj\.", r"decoder.layers.\1.causal_step.in_proj."),
    (r"multimodal_layers\.(\d+)\.0\.fn\.attn_out\.", r"decoder.layers.\1.causal_step.attn_out."),
    (r"multimodal_layers\.(\d+)\.0\.fn\.ff_out\.1\.", r"decoder.layers.\1.causal_step.ff_out."),
    (r"multimodal_layers\.(\d+)\.1\.fn\.norm\.gamma$", r"decoder.layers.\1.cross_step.norm.weight"),
    (r"multimodal_layers\.(\d+)\.1\.fn\.to_q\.", r"decoder.layers.\1.cross_step.q_proj."),
    (r"multimodal_layers\.(\d+)\.1\.fn\.to_kv\.", r"decoder.layers.\1.cross_step.kv_proj."),
    (r"multimodal_layers\.(\d+)\.1\.fn\.to_out\.", r"decoder.layers.\1.cross_step.attn_out."),
    (r"multimodal_layers\.(\d+)\.1\.fn\.ff\.0\.", r"decoder.layers.\1.cross_step.ff_in."),
    (r"multimodal_layers\.(\d+)\.1\.fn\.ff\.2\.", r"decoder.layers.\1.cross_step.ff_out."),
    (r"to_logits\.0\.gamma$", "decoder.norm.weight"),
    (r"to_logits\.1\.", "decoder.lm_head."),
)
#: XResNet blocks keep each convolution under two names; both lead to ours.
XRESNET_BLOCK = re.compile(
    r"img_encoder\.([4-7])\.(\d+)\.(?:(?:convs|convpath\.0)\.(?P<conv>\d)|idpath\.\d+)\.(?P<part>[01])\.(.+)$"
)


def convert_released_checkpoint(state_dict: Mapping[str, torch.Tensor], text_config: PreTrainedConfig) -> ESIModel:
    """Build the `released` variant from published tensors.

    Args:
        state_dict: Tensors under the published names (with or without `module.` before them).
        text_config: Configuration of the text encoder that the weights were trained with.

    Returns:
        The model in evaluation mode, float32.

    Raises:
        ValueError: Tensors that are unknown, missing, of a shape that does not fit, or that contradict their second
            copy; the message lists them.
    """
    tensors = _plain_names(state_dict)
    _check_constant_buffers(tensors)
    config = infer_config(tensors, text_config)
    return _load(ESIModel(config), tensors)


def convert_released_encoder(state_dict: Mapping[str, torch.Tensor]) -> ESIEcgModel:
    """Build the ECG encoder alone from its published tensors (without the `img_encoder.` prefix).

    Raises:
        ValueError: As `convert_released_checkpoint`.
    """
    tensors = {f"img_encoder.{name}": tensor for name, tensor in _plain_names(state_dict).items()}
    return _load(ESIEcgModel(infer_ecg_config(tensors)), tensors, prefix="ecg_model.")


def infer_config(tensors: Mapping[str, torch.Tensor], text_config: PreTrainedConfig) -> ESIConfig:
    """Read every size off the published tensors."""

    def shape(name: str) -> torch.Size:
        if name not in tensors:
            raise ValueError(f"checkpoint: expected a tensor {name!r}, found none. Is this a published ESI checkpoint?")
        return tensors[name].shape

    head_dim = shape("multimodal_layers.0.1.fn.to_kv.weight")[0] // 2
    vocab_size, width = shape("to_logits.1.weight")
    decoder = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "head_dim": head_dim,
        "num_attention_heads": shape("multimodal_layers.0.1.fn.to_q.weight")[0] // head_dim,
        "intermediate_size": shape("multimodal_layers.0.0.fn.ff_out.1.weight")[1],
        "num_hidden_layers": _count(tensors, r"multimodal_layers\.(\d+)\."),
        "ecg_context": "pooled",
        "input_states": "text_encoder",
        "pad_token_id": 0,
    }
    return ESIConfig.from_variant(
        "released",
        ecg_config=infer_ecg_config(tensors).to_dict(),
        text_config=text_config,
        decoder_config=decoder,
        projection_dim=shape("img_to_latents.to_latents.weight")[0],
    )


def infer_ecg_config(tensors: Mapping[str, torch.Tensor]) -> ESIEcgConfig:
    """Family and size of the encoder, and its preset name where it is one."""
    if any(name.startswith("img_encoder.stages.") for name in tensors):
        stem = tensors["img_encoder.downsample_layers.0.0.weight"]
        sizes = {
            "encoder_type": "convnextv2",
            "depths": [_count(tensors, rf"img_encoder\.stages\.{s}\.(\d+)\.") for s in range(4)],
            "hidden_sizes": [len(tensors[f"img_encoder.stages.{s}.0.dwconv.bias"]) for s in range(4)],
            "kernel_size": tensors["img_encoder.stages.0.0.dwconv.weight"].shape[-1],
        }
        return _ecg_config(sizes, num_leads=stem.shape[1], patch_size=stem.shape[2], norm_type="time")
    widths = [_xresnet_tensor(tensors, s, conv=2).shape[0] for s in range(4)]
    sizes = {
        "encoder_type": "xresnet1d",
        "depths": [_count(tensors, rf"img_encoder\.{4 + s}\.(\d+)\.") for s in range(4)],
        "hidden_sizes": widths,
        "kernel_size": _xresnet_tensor(tensors, 0, conv=1).shape[-1],
    }
    return _ecg_config(sizes, num_leads=tensors["img_encoder.0.0.weight"].shape[1])


def _ecg_config(sizes: dict, **kwargs) -> ESIEcgConfig:
    preset = next((name for name, known in ENCODER_PRESETS.items() if known == sizes), None)
    return ESIEcgConfig(signal_encoder=preset, mask_padding=False, **sizes, **kwargs)


def _xresnet_tensor(tensors: Mapping[str, torch.Tensor], stage: int, conv: int) -> torch.Tensor:
    for name in (
        f"img_encoder.{4 + stage}.0.convs.{conv}.0.weight",
        f"img_encoder.{4 + stage}.0.convpath.0.{conv}.0.weight",
    ):
        if name in tensors:
            return tensors[name]
    raise ValueError(
        "checkpoint: neither a ConvNeXt V2 (img_encoder.stages.*) nor an XResNet (img_encoder.4.0.convs.*) is in it. "
        f"First names: {', '.join(list(tensors)[:5])}."
    )


def _count(tensors: Mapping[str, torch.Tensor], pattern: str) -> int:
    return 1 + max((int(match[1]) for name in tensors if (match := re.match(pattern, name))), default=-1)


def _plain_names(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}


def _check_constant_buffers(tensors: Mapping[str, torch.Tensor]) -> None:
    """LayerNorms without bias are stored with a zero `beta`; one that is not zero would be lost."""
    norms = [name for name in tensors if _is_zero_beta(name)]
    wrong = [name for name in norms if torch.count_nonzero(tensors[name])]
    if wrong:
        raise ValueError(f"checkpoint: expected zeros in the constant buffers {', '.join(wrong)}, got other values.")


def _is_zero_beta(name: str) -> bool:
    return name.endswith(".beta") and ".grn." not in name


def rename(name: str) -> str | None:
    """Our name of a published tensor, `None` where it is known to be unused.

    Raises:
        KeyError: An unknown name.
    """
    if _is_zero_beta(name) or any(re.match(pattern, name) for pattern in UNUSED):
        return None
    if block := XRESNET_BLOCK.match(name):
        where = f"convs.{block['conv']}" if block["conv"] else "shortcut"
        part = ("conv", "norm")[int(block["part"])]
        return f"ecg_model.encoder.stages.{int(block[1]) - 4}.{block[2]}.{where}.{part}.{block[5]}"
    for pattern, ours in RENAMES:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name, count=1)
    raise KeyError(name)


def _load(model, tensors: Mapping[str, torch.Tensor], prefix: str = ""):
    """Fill `model` with renamed tensors; every one of both sides must be accounted for."""
    expected = model.state_dict()
    renamed, unused, problems = {}, [], []
    for name, tensor in tensors.items():
        try:
            ours = rename(name)
        except KeyError:
            problems.append(f"unknown: {name} {tuple(tensor.shape)}")
            continue
        if ours is None:
            unused.append(name)
            continue
        ours = ours.removeprefix(prefix)
        if ours not in expected:
            problems.append(f"without a place in this model: {name} {tuple(tensor.shape)}")
        elif _squeezed(tensor) != _squeezed(expected[ours]):
            problems.append(f"{name}: expected shape {tuple(expected[ours].shape)}, got {tuple(tensor.shape)}")
        elif ours in renamed and not torch.equal(renamed[ours], tensor.reshape(expected[ours].shape)):
            problems.append(f"{name}: differs from its second copy")
        else:
            renamed[ours] = tensor.reshape(expected[ours].shape)
    problems += [f"missing: {name}" for name in expected if name not in renamed and not _is_counter(name)]
    if problems:
        raise ValueError(f"checkpoint: {len(problems)} tensors do not fit:\n  " + "\n  ".join(problems))
    logger.info("Not used, as expected: %s", ", ".join(unused) or "none")
    model.load_state_dict(renamed, strict=False)
    return model.eval()


def _squeezed(tensor: torch.Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Read tensors from a safetensors file, or a PyTorch file without running any code in it.

    Raises:
        ValueError: A file that is not there, or does not hold a dictionary of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint: no file {path}. Download it from the authors' model page first.")
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint: {path} is not a plain file of tensors (it may hold code, which is never run). "
            "Convert it to safetensors where it comes from."
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state_dict, Mapping) and isinstance(state_dict.get(wrapper), Mapping):
            state_dict = state_dict[wrapper]
    if not isinstance(state_dict, Mapping) or not all(torch.is_tensor(value) for value in state_dict.values()):
        raise ValueError(f"checkpoint: expected a dictionary of tensors in {path}, got {type(state_dict).__name__}.")
    return dict(state_dict)


def main(argv: list[str] | None = None) -> None:
    """Command line: read, convert, write model, processor, tokenizer and card."""
    from .feature_extraction_esi import ESIFeatureExtractor
    from .hub import write_model_card
    from .processing_esi import ESIProcessor

    parser = argparse.ArgumentParser(prog="python -m modeling_esi.convert_released_checkpoint", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", required=True, help="the authors' .safetensors or .bin file")
    parser.add_argument("--text_encoder", required=True, help="name or folder of the text encoder they trained with")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--lead_order", choices=LEAD_ORDERS, default="mimic", help="order the weights saw leads in")
    parser.add_argument("--sampling_rate", type=float, default=500.0, help="Hz the weights were trained at")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    tokenizer = AutoTokenizer.from_pretrained(args.text_encoder)
    model = convert_released_checkpoint(read_checkpoint(args.checkpoint), AutoConfig.from_pretrained(args.text_encoder))
    model.config.decoder_config.bos_token_id = tokenizer.cls_token_id
    model.config.decoder_config.eos_token_id = tokenizer.sep_token_id
    feature_extractor = ESIFeatureExtractor(
        sampling_rate=args.sampling_rate, leads=list(LEAD_ORDERS[args.lead_order]), scaling="record"
    )
    model.save_pretrained(args.output)
    ESIProcessor(feature_extractor, tokenizer).save_pretrained(args.output)
    write_model_card(
        args.output,
        model,
        license="gpl-3.0",
        training_data="The authors' published weights (MIMIC-IV-ECG for certain; by a survey also PTB-XL and "
        "Chapman-Shaoxing-Ningbo, so results on those two are not held out).",
        base_model=args.text_encoder,
    )
    logger.info("Wrote %s: %s, %s parameters.", args.output, model.config.ecg_config.signal_encoder or "custom encoder",
                f"{model.num_parameters():,}")  # fmt: skip


if __name__ == "__main__":
    main()

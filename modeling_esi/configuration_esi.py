"""Configuration of ESI: the ECG encoder, the text encoder, the caption decoder, and how the losses join them.

Every difference between the published weights' computation (`released`) and this project's default (`esi`) is one
named field; `VARIANTS` lists them all, and `ESIConfig.from_variant` sets them.
"""

import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.pipelines import PIPELINE_REGISTRY

#: The order of leads that the model sees by default, and the usual order of a printed ECG.
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
#: The order in MIMIC-IV-ECG files (aVF before aVL), in which the published weights saw their training records.
MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")

_CONVNEXTV2_SIZES = {
    "convnextv2_atto": ([2, 2, 6, 2], [40, 80, 160, 320]),
    "convnextv2_femto": ([2, 2, 6, 2], [48, 96, 192, 384]),
    "convnextv2_pico": ([2, 2, 6, 2], [64, 128, 256, 512]),
    "convnextv2_nano": ([2, 2, 8, 2], [80, 160, 320, 640]),
    "convnextv2_tiny": ([3, 3, 9, 3], [96, 192, 384, 768]),
    "convnextv2_base": ([3, 3, 27, 3], [128, 256, 512, 1024]),
    "convnextv2_large": ([3, 3, 27, 3], [192, 384, 768, 1536]),
    "convnextv2_huge": ([3, 3, 27, 3], [352, 704, 1408, 2816]),
}
#: Encoder presets by name: family, blocks for each stage, width of each stage, kernel size.
ENCODER_PRESETS: dict[str, dict[str, Any]] = {
    name: {"encoder_type": "convnextv2", "depths": depths, "hidden_sizes": widths, "kernel_size": 7}
    for name, (depths, widths) in _CONVNEXTV2_SIZES.items()
}
ENCODER_PRESETS["xresnet1d101"] = {
    "encoder_type": "xresnet1d",
    "depths": [3, 4, 23, 3],
    "hidden_sizes": [256, 256, 256, 256],
    "kernel_size": 5,
}
DEFAULT_ENCODER = "convnextv2_base"

#: Every field in which the two variants differ; a name before a dot is the sub-configuration.
VARIANTS: dict[str, dict[str, Any]] = {
    "esi": {
        "ecg_config.norm_type": "channel",
        "ecg_config.mask_padding": True,
        "decoder_config.ecg_context": "frames",
        "decoder_config.input_states": "token_embeddings",
        "negatives": "global",
        "positives": "entailed",
        "logit_scale_init_value": math.log(1 / 0.07),
        "logit_scale_max": 100.0,
    },
    "released": {
        "ecg_config.norm_type": "time",
        "ecg_config.mask_padding": False,
        "decoder_config.ecg_context": "pooled",
        "decoder_config.input_states": "text_encoder",
        "negatives": "local",
        "positives": "pair",
        "logit_scale_init_value": 1.0,
        "logit_scale_max": None,
    },
}
#: The one difference that lives in the feature extractor: `ESIFeatureExtractor(scaling=...)`.
VARIANT_SCALING = {"esi": "fixed", "released": "record"}


@strict
class ESIEcgConfig(PreTrainedConfig):
    r"""Configuration of an ECG encoder, `(B, num_leads, S)` to frames `(B, F, hidden_size)`.

    Args:
        signal_encoder: Preset name (`ENCODER_PRESETS`). `None` with `depths` or `hidden_sizes` given is a custom size;
            with nothing given it is `convnextv2_base`.
        encoder_type: Family, `"convnextv2"` or `"xresnet1d"`. Follows from `signal_encoder` where that is given.
        depths: Blocks in each of the four stages.
        hidden_sizes: Channels that each of the four stages puts out.
        hidden_size: Width of the pooled vector. It follows from `hidden_sizes` (the last one; for XResNet twice that,
            max and mean concatenated); given alone it replaces the width of the default's last stage.
        num_leads: Leads of the input.
        patch_size: Kernel and stride of the ConvNeXt stem, in samples.
        kernel_size: Width of the depthwise (ConvNeXt, 7) or bottleneck (XResNet, 5) convolution, in frames.
        norm_type: Norm in stem and downsampling: `"channel"` (over channels, at each time step), `"time"` (over time,
            for each channel, as in the published weights), `"batch"` (BatchNorm, XResNet only).
        mask_padding: Whether padded samples are kept out of convolutions, norms over time, GRN and pooling.
        drop_path_rate: Probability of dropping the last block in training; it rises linearly with depth from 0.
        layer_norm_eps: Epsilon of the LayerNorms.
        initializer_range: Standard deviation of the truncated normal that weights start from.

    Raises:
        ValueError: Sizes that contradict the preset or each other, or a norm that the family does not have.

    Example:

    ```python
    >>> from modeling_esi import ESIEcgConfig
    >>> ESIEcgConfig(signal_encoder="convnextv2_atto").hidden_size
    320

    ```"""

    model_type = "esi_ecg"
    base_config_key = "ecg_config"

    signal_encoder: str | None = None
    encoder_type: Literal["convnextv2", "xresnet1d"] | None = None
    depths: list[int] | tuple[int, ...] | None = None
    hidden_sizes: list[int] | tuple[int, ...] | None = None
    hidden_size: int | None = None
    num_leads: int = 12
    patch_size: int = 4
    kernel_size: int | None = None
    norm_type: Literal["channel", "time", "batch"] | None = None
    mask_padding: bool = True
    drop_path_rate: float | int = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if self.signal_encoder is None and self._sizes_are_default():
            self.signal_encoder = DEFAULT_ENCODER
        if self.signal_encoder is not None:
            self._apply_preset()
        else:
            self._fill_custom_sizes()
        if self.norm_type is None:
            self.norm_type = "batch" if self.encoder_type == "xresnet1d" else "channel"
        if self.hidden_size is None:
            self.hidden_size = self._pooled_width()
        super().__post_init__(**_without_known_pipelines(kwargs))
        self.validate_architecture()  # here too, so that a wrong combination is a plain ValueError

    def _sizes_are_default(self) -> bool:
        given = (self.encoder_type, self.depths, self.hidden_sizes, self.hidden_size, self.kernel_size)
        return all(value is None for value in given)

    def _apply_preset(self) -> None:
        if self.signal_encoder not in ENCODER_PRESETS:
            raise ValueError(
                f"signal_encoder: expected one of {', '.join(ENCODER_PRESETS)}, got {self.signal_encoder!r}. "
                "For another size leave it out and give depths and hidden_sizes."
            )
        for name, value in ENCODER_PRESETS[self.signal_encoder].items():
            given = getattr(self, name)
            given = list(given) if isinstance(given, tuple) else given
            if given is not None and given != value:
                raise ValueError(
                    f"{name}: signal_encoder {self.signal_encoder!r} has {value}, got {given}. "
                    "Leave signal_encoder out to choose sizes of your own."
                )
            setattr(self, name, list(value) if isinstance(value, list) else value)

    def _fill_custom_sizes(self) -> None:
        self.encoder_type = self.encoder_type or "convnextv2"
        family = ENCODER_PRESETS["xresnet1d101" if self.encoder_type == "xresnet1d" else DEFAULT_ENCODER]
        self.depths = list(self.depths or family["depths"])
        if self.hidden_sizes is None:
            self.hidden_sizes = list(family["hidden_sizes"])
            if self.hidden_size is not None and self.encoder_type == "convnextv2":
                self.hidden_sizes[-1] = self.hidden_size
        self.hidden_sizes = list(self.hidden_sizes)
        self.kernel_size = self.kernel_size or family["kernel_size"]

    def _pooled_width(self) -> int:
        return self.hidden_sizes[-1] * (2 if self.encoder_type == "xresnet1d" else 1)

    def validate_architecture(self):
        """Refuse sizes and norms that do not fit together (also run by `@strict`)."""
        if len(self.depths) != 4 or len(self.hidden_sizes) != 4:
            raise ValueError(
                f"depths and hidden_sizes: expected four stages each, got {self.depths} and {self.hidden_sizes}."
            )
        if min(*self.depths, *self.hidden_sizes) < 1:
            raise ValueError(f"depths and hidden_sizes must be positive, got {self.depths} and {self.hidden_sizes}.")
        if self.hidden_size != self._pooled_width():
            raise ValueError(
                f"hidden_size: hidden_sizes {self.hidden_sizes} give {self._pooled_width()}, got {self.hidden_size}."
            )
        if (self.norm_type == "batch") != (self.encoder_type == "xresnet1d"):
            raise ValueError(
                f"norm_type: {self.encoder_type} has "
                f"{'batch' if self.encoder_type == 'xresnet1d' else 'channel or time'}, got {self.norm_type!r}."
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {self.kernel_size}.")
        if not 0.0 <= self.drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate: expected 0 <= rate < 1, got {self.drop_path_rate}.")


@strict
class ESIDecoderConfig(PreTrainedConfig):
    r"""Configuration of the caption decoder (multi-query attention, rotary positions, SwiGLU).

    Args:
        vocab_size: Tokens of the output head. `None` is filled in from the text encoder by `ESIConfig`.
        hidden_size: Model width D.
        embedding_size: Width of the text encoder's token table. `None` is filled in by `ESIConfig`.
        num_hidden_layers: Layers, each a self-attention and a cross-attention step.
        num_attention_heads: Query heads; keys and values have one head.
        head_dim: Width of one head.
        intermediate_size: Width of the feed-forward branches; 4 D where not given.
        rope_theta: Base of the rotary positions.
        layer_norm_eps: Epsilon of the LayerNorms, which have no bias.
        initializer_range: Standard deviation that weights start from; `hidden_size ** -0.5` where not given.
        ecg_context: What the cross-attention sees: `"frames"` of the encoder, or the `"pooled"` ECG embedding.
        input_states: What enters the decoder: causal `"token_embeddings"`, or the `"text_encoder"`'s states, which
            see the tokens to be predicted (the published weights' leak).
        bos_token_id, eos_token_id, pad_token_id: From the tokenizer; padding is never a target.

    Raises:
        ValueError: An odd head_dim (rotary positions turn pairs).
    """

    model_type = "esi_decoder"
    base_config_key = "decoder_config"

    vocab_size: int | None = None
    hidden_size: int = 768
    embedding_size: int | None = None
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    head_dim: int = 64
    intermediate_size: int | None = None
    rope_theta: float | int = 10000.0
    layer_norm_eps: float = 1e-5
    initializer_range: float | None = None
    ecg_context: Literal["frames", "pooled"] = "frames"
    input_states: Literal["token_embeddings", "text_encoder"] = "token_embeddings"
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.initializer_range is None:
            self.initializer_range = self.hidden_size**-0.5
        super().__post_init__(**kwargs)
        self.validate_architecture()  # here too, so that a wrong combination is a plain ValueError

    def validate_architecture(self):
        """Refuse sizes that do not fit together (also run by `@strict`)."""
        if self.head_dim % 2:
            raise ValueError(f"head_dim: rotary positions turn pairs, expected an even number, got {self.head_dim}.")


@strict
class ESIConfig(PreTrainedConfig):
    r"""Configuration of ESI: an ECG encoder, a text encoder and a caption decoder, joined by two losses.

    Args:
        ecg_config: `ESIEcgConfig` or its fields.
        text_config: Configuration (or fields, with `model_type`) of any encoder of transformers that gives
            `last_hidden_state`. Default: a BERT of BioLinkBERT-base's shape.
        decoder_config: `ESIDecoderConfig` or its fields.
        hidden_size: Model width D of the ECG embedding and the decoder. Default: `decoder_config`'s, 768.
        projection_dim: Width P of the shared embedding space.
        logit_scale_init_value: Natural logarithm of the similarity scale at the start.
        logit_scale_max: The scale itself is clamped at this value; `None` never clamps.
        negatives: `"global"` contrasts over the batch of all processes, `"local"` within one.
        positives: `"pair"` counts only the pair, `"text_key"` also records with the same statements, `"entailed"` also
            every ECG that has all that a text says.
        contrastive_loss_type: `"softmax"` (CLIP: which text belongs to this ECG) or `"sigmoid"` (SigLIP: does this text
            belong to this ECG, for each pair; a `logit_bias` is learned).
        logit_bias_init_value: What sigmoid adds to the scaled similarities at the start. SigLIP starts at scale 10
            (`logit_scale_init_value=math.log(10)`) and bias -10.
        contrastive_loss_weight, caption_loss_weight: Weights in the sum. With caption weight 0 no decoder is built.
        text_groups: In training the text encoder runs over so many groups of rows of similar length, so that little is
            computed on padding. It changes speed alone; 1 runs it once, over the padded batch, which is better where
            weights are sharded over a slow network: every run gathers them.
        initializer_range: Standard deviation that heads and projections start from; `hidden_size ** -0.5` where not
            given.

    Raises:
        ValueError: Combinations that make no sense, each with what was expected and what came.

    Example:

    ```python
    >>> from modeling_esi import ESIConfig
    >>> ESIConfig.from_variant("released").decoder_config.ecg_context
    'pooled'

    ```"""

    model_type = "esi"
    sub_configs = {"ecg_config": ESIEcgConfig, "text_config": AutoConfig, "decoder_config": ESIDecoderConfig}

    ecg_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    decoder_config: dict | PreTrainedConfig | None = None
    hidden_size: int | None = None
    projection_dim: int = 768
    logit_scale_init_value: float | int = math.log(1 / 0.07)
    logit_scale_max: float | int | None = 100.0
    negatives: Literal["global", "local"] = "global"
    positives: Literal["text_key", "pair", "entailed"] = "entailed"
    contrastive_loss_type: Literal["softmax", "sigmoid"] = "softmax"
    logit_bias_init_value: float | int = -10.0
    contrastive_loss_weight: float | int = 1.0
    caption_loss_weight: float | int = 1.0
    text_groups: int = 4
    initializer_range: float | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if self.ecg_config is None or isinstance(self.ecg_config, dict):
            self.ecg_config = ESIEcgConfig(**(self.ecg_config or {}))
        if self.text_config is None or isinstance(self.text_config, dict):
            self.text_config = _build_text_config(self.text_config)
        if self.decoder_config is None or isinstance(self.decoder_config, dict):
            fields = dict(self.decoder_config or {})
            fields.setdefault("hidden_size", self.hidden_size or ESIDecoderConfig.hidden_size)
            self.decoder_config = ESIDecoderConfig(**fields)
        if self.hidden_size is None:
            self.hidden_size = self.decoder_config.hidden_size
        if self.initializer_range is None:
            self.initializer_range = self.hidden_size**-0.5
        self._fill_decoder_from_text_encoder()
        super().__post_init__(**_without_known_pipelines(kwargs))
        self.validate_architecture()  # here too, so that a wrong combination is a plain ValueError

    def _fill_decoder_from_text_encoder(self) -> None:
        if self.decoder_config.vocab_size is None:
            self.decoder_config.vocab_size = self.text_config.vocab_size
        if self.decoder_config.embedding_size is None:
            width = getattr(self.text_config, "embedding_size", None) or self.text_config.hidden_size
            self.decoder_config.embedding_size = width

    @classmethod
    def from_variant(cls, variant: str, signal_encoder: str | None = None, **kwargs: Any) -> "ESIConfig":
        """Build the configuration of a named variant.

        Args:
            variant: `"esi"` (this project's default) or `"released"` (what the published weights compute).
            signal_encoder: Encoder preset, beside or instead of `ecg_config`.
            **kwargs: Any field of `ESIConfig`; it wins over the variant's. Of a sub-configuration given as an object,
                not as a dictionary, the variant sets its own fields (which of them were chosen cannot be seen).

        Raises:
            ValueError: An unknown variant.
        """
        if variant not in VARIANTS:
            raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}.")
        fields: dict[str, Any] = dict(kwargs)
        for section in ("ecg_config", "decoder_config"):
            fields[section] = _given_fields(fields.get(section) or {})
        if signal_encoder is not None:
            fields["ecg_config"]["signal_encoder"] = signal_encoder
        for name, value in VARIANTS[variant].items():
            section, _, field = name.rpartition(".")
            if name != "ecg_config.norm_type" or not _is_xresnet(fields["ecg_config"]):
                (fields[section] if section else fields).setdefault(field, value)
        return cls(**fields)

    @property
    def variant(self) -> str:
        """`"esi"`, `"released"`, or `"custom"` where the fields of `VARIANTS` match neither."""
        for variant, fields in VARIANTS.items():
            if all(self._has(name, value) for name, value in fields.items()):
                return variant
        return "custom"

    def _has(self, name: str, value: Any) -> bool:
        section, _, field = name.rpartition(".")
        actual = getattr(getattr(self, section) if section else self, field)
        return actual == value or actual == "batch"

    def validate_architecture(self):
        """Refuse combinations that make no sense (also run by `@strict`)."""
        decoder, text = self.decoder_config, self.text_config
        if self.hidden_size != decoder.hidden_size:
            raise ValueError(f"hidden_size: the decoder's is {decoder.hidden_size}, got {self.hidden_size}.")
        if decoder.input_states == "text_encoder" and decoder.hidden_size != text.hidden_size:
            raise ValueError(
                "decoder_config.input_states='text_encoder' needs a decoder as wide as the text encoder: "
                f"expected hidden_size {text.hidden_size}, got {decoder.hidden_size}."
            )
        if decoder.input_states == "token_embeddings" and decoder.vocab_size < text.vocab_size:
            raise ValueError(
                "decoder_config.vocab_size: the decoder must be able to write every token of the text encoder's "
                f"{text.vocab_size}, got {decoder.vocab_size}."
            )
        if self.contrastive_loss_weight <= 0 or self.caption_loss_weight < 0:
            raise ValueError(
                "contrastive_loss_weight must be positive and caption_loss_weight not negative, "
                f"got {self.contrastive_loss_weight} and {self.caption_loss_weight}."
            )
        if self.text_groups < 1:
            raise ValueError(f"text_groups: expected at least 1, got {self.text_groups}.")
        if self.logit_scale_max is not None and self.logit_scale_init_value > math.log(self.logit_scale_max) + 1e-9:
            raise ValueError(
                f"logit_scale_init_value: expected at most ln(logit_scale_max) = {math.log(self.logit_scale_max):.4f}, "
                f"got {self.logit_scale_init_value} (it is stored as a logarithm)."
            )


def _without_known_pipelines(fields: dict[str, Any]) -> dict[str, Any]:
    """Without a folder's `custom_pipelines` where this process has them all: it needs no code from the folder then."""
    known = PIPELINE_REGISTRY.supported_tasks
    are_known = all(task in known for task in fields.get("custom_pipelines") or ())
    return {name: value for name, value in fields.items() if name != "custom_pipelines" or not are_known}


def _build_text_config(fields: dict[str, Any] | None) -> PreTrainedConfig:
    """The text encoder's configuration; BioLinkBERT-base's shape where nothing is given."""
    fields = {"model_type": "bert", "vocab_size": 28895} if fields is None else dict(fields)
    model_type = fields.pop("model_type", "bert")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"text_config: expected a model_type that transformers knows, such as 'bert', got {model_type!r}."
        )
    return CONFIG_MAPPING[model_type](**fields)


def _given_fields(section: dict[str, Any] | PreTrainedConfig) -> dict[str, Any]:
    if isinstance(section, dict):
        return dict(section)
    of_variant = {name.rpartition(".")[2] for name in VARIANTS["esi"]}
    return {name: value for name, value in section.to_dict().items() if name not in of_variant}


def _is_xresnet(ecg_fields: dict[str, Any]) -> bool:
    preset = ENCODER_PRESETS.get(ecg_fields.get("signal_encoder"), {})
    return "xresnet1d" in (ecg_fields.get("encoder_type"), preset.get("encoder_type"))

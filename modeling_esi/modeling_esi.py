"""ESI: an ECG encoder and a text encoder trained by a contrastive loss, and a decoder that writes reports.

Yu, Guo and Sano, "ECG Semantic Integrator (ESI): A Foundation ECG Model Pretrained with LLM-Enhanced Cardiological
Text", TMLR 2024, https://arxiv.org/abs/2405.19366. The joint model stands last; read `ESIModel.forward`.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.utils import ModelOutput, can_return_tuple

from .caption_decoder import ESICaptionDecoder, ESIDecoderOutput
from .configuration_esi import ESIConfig, ESIEcgConfig
from .convnextv2_1d import ConvNeXtV2Encoder1d, GlobalResponseNorm, TimeNorm
from .losses import caption_loss, caption_targets, configured_contrastive_loss, mean_over_processes
from .text_model import build_text_model, holders_of, without_pooler
from .texts_by_length import RealTokens, encode_by_length
from .vocabulary_loss import vocabulary_loss
from .xresnet1d import XResNet1dEncoder

IGNORED = -100  # in caption targets: padding, which no loss counts
ENCODERS = {"convnextv2": ConvNeXtV2Encoder1d, "xresnet1d": XResNet1dEncoder}


@dataclass
class ESIEcgOutput(BaseModelOutputWithPooling):
    """Output of the ECG encoder.

    Attributes:
        last_hidden_state: `(B, F, H)` frames.
        pooler_output: `(B, H)` pooled over time.
        hidden_states: Each stage's output, `(B, F_s, C_s)`, where asked for.
        frame_mask: `(B, F)` bool, true where a frame is made of real samples; `None` where all are.
    """

    frame_mask: torch.Tensor | None = None


@dataclass
class ESIOutput(ModelOutput):
    """Output of `ESIModel`.

    Attributes:
        loss: Weighted sum of the two losses.
        contrastive_loss, caption_loss: The parts, in nats.
        logits_per_ecg, logits_per_text: Scaled cosine similarities, `(B_ecg, B_text)` and its transpose.
        caption_logits: `(B, T', V)`; entry `i` predicts token `i + 1` (`released`: token `i + 2`). In training they
            come only where asked for.
        ecg_embeds, text_embeds: `(B, P)`, L2-normalised.
        ecg_state: `(B, D)`, the pooled ECG at model width, before projection.
        ecg_model_output, text_model_output: What the encoders gave.
        decoder_output: What the decoder gave.
    """

    loss: torch.Tensor | None = None
    contrastive_loss: torch.Tensor | None = None
    caption_loss: torch.Tensor | None = None
    logits_per_ecg: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    caption_logits: torch.Tensor | None = None
    ecg_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    ecg_state: torch.Tensor | None = None
    ecg_model_output: ModelOutput | None = None
    text_model_output: ModelOutput | None = None
    decoder_output: ModelOutput | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


class ESIPreTrainedModel(PreTrainedModel):
    """What all models of ESI share: loading and saving, and the weights they start from."""

    config: ESIConfig
    base_model_prefix = "esi"
    main_input_name = "input_values"
    accepts_loss_kwargs = False  # a mean over the batch: Trainer divides it by its accumulated steps
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["ConvNeXtV2Block", "XResNetBlock", "ESIDecoderLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    write_card = None  # of a plain push_to_hub; the package sets it, code from the Hub has none

    def _upload_modified_files(self, working_dir, repo_id, *args, **kwargs):
        """The last step of transformers' `push_to_hub`."""
        if self.write_card is not None:
            self.write_card(working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """As of transformers; the folder brings the pipelines along that serve this model."""
        from .pipeline_esi import pipelines_of  # here, so that it ships; loading a model needs no pipeline

        self.config.custom_pipelines = pipelines_of(self)
        super().save_pretrained(save_directory, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers calls this only for modules with parameters of their own: never for a block or an encoder.
        super()._init_weights(module)
        if isinstance(module, GlobalResponseNorm):
            init.zeros_(module.gamma)
            init.zeros_(module.beta)
        elif isinstance(module, (nn.LayerNorm, TimeNorm)):
            init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ESIModel):
            init.constant_(module.logit_scale, float(module.config.logit_scale_init_value))
            if module.config.contrastive_loss_type == "sigmoid":
                init.constant_(module.logit_bias, float(module.config.logit_bias_init_value))


class ESIEcgModel(ESIPreTrainedModel):
    """The ECG encoder alone: `input_values (B, 12, S)` to frames `(B, F, H)` and a pooled vector `(B, H)`.

    Example:

    ```python
    >>> import torch
    >>> from modeling_esi import ESIEcgConfig, ESIEcgModel
    >>> model = ESIEcgModel(ESIEcgConfig(depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 24, 37])).eval()
    >>> model(torch.zeros(2, 12, 500)).pooler_output.shape
    torch.Size([2, 37])

    ```"""

    config: ESIEcgConfig
    base_model_prefix = "ecg_model"
    input_modalities = ("audio",)

    def __init__(self, config: ESIEcgConfig):
        super().__init__(config)
        self.encoder = ENCODERS[config.encoder_type](config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normal for ConvNeXt, Kaiming-normal for XResNet, whose blocks start as their shortcuts."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d) and self.config.encoder_type == "xresnet1d":
            init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, (nn.Conv1d, nn.Linear)):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.BatchNorm1d):
            init.constant_(module.bias, 1e-3)
            if module.starts_at_zero:
                init.zeros_(module.weight)

    def get_input_embeddings(self) -> nn.Module:
        """The stem: the first convolution that the signal meets."""
        return next(module for module in self.encoder.modules() if isinstance(module, nn.Conv1d))

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        lead_mask: torch.Tensor | None = None,
        sample_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> ESIEcgOutput:
        """Encode ECGs.

        Args:
            input_values: `(B, 12, S)` float, from `ESIFeatureExtractor`.
            lead_mask: `(B, 12)` bool, true where a lead is present. What stands in other leads has no influence.
            sample_mask: `(B, S)` bool, true where a sample is real. What stands elsewhere has no influence.

        Raises:
            ValueError: An input of another shape, or too short to make one frame.
        """
        input_values = _check_input_values(input_values, self.config).to(self.dtype)
        input_values = _blank_masked(input_values, lead_mask, sample_mask)
        sample_mask = sample_mask.bool() if sample_mask is not None and self.config.mask_padding else None
        frames, pooled, frame_mask, stage_outputs = self.encoder(input_values, sample_mask)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return ESIEcgOutput(
            last_hidden_state=frames,
            pooler_output=pooled,
            hidden_states=stage_outputs if output_hidden_states else None,
            frame_mask=frame_mask,
        )


def _check_input_values(input_values: torch.Tensor | None, config: ESIEcgConfig) -> torch.Tensor:
    num_leads = config.num_leads
    if input_values is None or input_values.ndim != 3 or input_values.shape[1] != num_leads:
        got = None if input_values is None else tuple(input_values.shape)
        raise ValueError(
            f"input_values: expected (batch, {num_leads} leads, samples), got {got}. "
            "ESIFeatureExtractor makes them from records."
        )
    shortest = 8 * config.patch_size if config.encoder_type == "convnextv2" else 1  # one frame
    if input_values.shape[2] < shortest:
        raise ValueError(f"input_values: expected at least {shortest} samples, got {input_values.shape[2]}.")
    return input_values


def _blank_masked(
    input_values: torch.Tensor, lead_mask: torch.Tensor | None, sample_mask: torch.Tensor | None
) -> torch.Tensor:
    if lead_mask is not None:
        input_values = input_values.masked_fill(~lead_mask.bool()[:, :, None], 0.0)
    if sample_mask is not None:
        input_values = input_values.masked_fill(~sample_mask.bool()[:, None, :], 0.0)
    return input_values


class ESIModel(ESIPreTrainedModel):
    """ECG encoder, text encoder and caption decoder, joined by the contrastive and the captioning loss.

    Args:
        config: Sizes and variant.
        text_model: A text encoder to take over (as loaded from the Hub) instead of a fresh one. Its configuration
            must be `config.text_config`'s.

    Example:

    ```python
    >>> import torch
    >>> from modeling_esi import ESIConfig, ESIModel
    >>> text = {"model_type": "bert", "vocab_size": 99, "hidden_size": 36, "num_hidden_layers": 1,
    ...         "num_attention_heads": 3, "intermediate_size": 37}
    >>> ecg = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 40]}
    >>> decoder = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    >>> model = ESIModel(ESIConfig(ecg_config=ecg, text_config=text, decoder_config=decoder, projection_dim=28)).eval()
    >>> output = model(torch.zeros(2, 12, 500), input_ids=torch.ones(2, 7, dtype=torch.long), return_loss=True)
    >>> output.ecg_embeds.shape, output.caption_logits.shape
    (torch.Size([2, 28]), torch.Size([2, 6, 99]))

    ```"""

    def __init__(self, config: ESIConfig, text_model: PreTrainedModel | None = None):
        super().__init__(config)
        width, decoder_config = config.hidden_size, config.decoder_config
        self.ecg_model = ESIEcgModel._from_config(config.ecg_config)
        self.text_model = build_text_model(config.text_config) if text_model is None else without_pooler(text_model)
        self.ecg_head = nn.Linear(config.ecg_config.hidden_size, width)
        self.ecg_norm = nn.LayerNorm(width, bias=False)
        self.ecg_projection = nn.Linear(width, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.full((1,), float(config.logit_scale_init_value)))
        if config.contrastive_loss_type == "sigmoid":
            self.logit_bias = nn.Parameter(torch.full((1,), float(config.logit_bias_init_value)))
        self.decoder = None
        if config.caption_loss_weight > 0:
            self.decoder = ESICaptionDecoder._from_config(decoder_config)
            if decoder_config.ecg_context == "frames":
                self.context_head = nn.Linear(config.ecg_config.hidden_sizes[-1], width)
                self.context_norm = nn.LayerNorm(width, bias=False)
        self.post_init()
        self._no_split_modules -= holders_of(self.get_input_embeddings(), self)

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, embeddings: nn.Module) -> None:
        self.text_model.set_input_embeddings(embeddings)

    def get_output_embeddings(self) -> nn.Linear | None:
        return None if self.decoder is None else self.decoder.get_output_embeddings()

    def set_output_embeddings(self, lm_head: nn.Linear) -> None:
        self.decoder.set_output_embeddings(lm_head)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        """Resize the text encoder's table and the decoder's head together, and say so in both configurations."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        self.config.decoder_config.vocab_size = self.config.text_config.vocab_size
        return embeddings

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """As of transformers; the folder's code also serves `AutoModelForSequenceClassification`."""
        known = getattr(self.config, "auto_map", None) or {}
        classifier = {"AutoModelForSequenceClassification": "modeling_esi.ESIForECGClassification"}
        self.config.auto_map = known | classifier
        super().save_pretrained(save_directory, **kwargs)

    def get_logit_scale(self) -> torch.Tensor:
        """The factor on cosine similarities, `(1,)`, clamped at `config.logit_scale_max`."""
        if self.config.logit_scale_max is None:
            return self.logit_scale.exp()
        return self.logit_scale.clamp(max=math.log(self.config.logit_scale_max)).exp()

    def contrastive_scalars(self) -> list[torch.Tensor]:
        """What the contrastive loss learns beside the embeddings, `(1,)` each: the scale and, for sigmoid, the bias."""
        is_sigmoid = self.config.contrastive_loss_type == "sigmoid"
        return [self.get_logit_scale(), *([self.logit_bias] if is_sigmoid else [])]

    def get_ecg_features(
        self, input_values: torch.Tensor, lead_mask: torch.Tensor | None = None, sample_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """ECG embeddings, `(B, P)`, L2-normalised; arguments as in `ESIEcgModel.forward`."""
        ecg = self.ecg_model(input_values, lead_mask=lead_mask, sample_mask=sample_mask, return_dict=True)
        return self._embed_ecg(self._ecg_state(ecg))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Text embeddings, `(B, P)`, L2-normalised, of `input_ids (B, T)` that start with the start token."""
        text = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        return self._embed_text(text.last_hidden_state)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        lead_mask: torch.Tensor | None = None,
        sample_mask: torch.Tensor | None = None,
        text_key: torch.Tensor | None = None,
        text_statements: torch.Tensor | None = None,
        ecg_statements: torch.Tensor | None = None,
        return_loss: bool | None = None,
        num_caption_targets: torch.Tensor | None = None,
        output_caption_logits: bool | None = None,
        **kwargs,
    ) -> ESIOutput:
        """Compare ECGs with texts, and predict each text from its ECG.

        Args:
            input_values, lead_mask, sample_mask: As in `ESIEcgModel.forward`.
            input_ids, attention_mask: `(B, T)`, start token first, padding last.
            text_key: `(B,)` integers; where `config.positives` is not `"pair"`, equal keys are positives.
            text_statements, ecg_statements: `(B, K)` and `(B, L)` numbers of what each text says and of all that is
                known of each ECG, -1 for none; where it is `"entailed"`, ECGs that have what a text says are positives.
            return_loss: Compute the losses. Nothing is captioned where it is false or the batches differ in size.
            num_caption_targets: Without `return_loss`: compute `caption_loss` alone, the sum over this batch's tokens
                divided by this number (scalar), as for one part of a larger batch.
            output_caption_logits: Give `caption_logits`. Default: yes, but not for a loss in training mode, where
                they would fill the memory and be computed for padding too.

        In the `released` variant the text encoder sees all tokens but the last, as the published model was trained;
        `get_text_features` always sees all, so that a text's embedding does not depend on the batch around it.

        Raises:
            ValueError: Losses asked for ECGs and texts that are not pairs.
        """
        ecg = self.ecg_model(
            input_values, lead_mask=lead_mask, sample_mask=sample_mask, return_dict=True, **_only_hidden_states(kwargs)
        )
        are_pairs, has_loss = len(input_values) == len(input_ids), return_loss or num_caption_targets is not None
        if has_loss and not are_pairs:
            raise ValueError(f"A loss needs pairs, got {len(input_values)} ECGs and {len(input_ids)} texts.")
        if output_caption_logits is None:
            output_caption_logits = not (has_loss and self.training)
        text = self._encode_text(input_ids, attention_mask, **kwargs)
        ecg_state = self._ecg_state(ecg)
        ecg_embeds, text_embeds = self._embed_ecg(ecg_state), self._embed_text(text.last_hidden_state)
        logits_per_text = self.get_logit_scale() * text_embeds @ ecg_embeds.T

        caption, losses = None, {}
        if self.decoder is not None and are_pairs and return_loss is not False:
            targets = self.tokens_to_predict(input_ids, attention_mask)
            tokens = None if output_caption_logits else RealTokens.up_to_the_last(targets != IGNORED)
            caption = self._caption(ecg, ecg_state, text, input_ids, tokens, **kwargs)
            if has_loss:
                losses["caption_loss"] = self._caption_loss(caption, targets, tokens, num_caption_targets)
        if return_loss:
            known = {"text_key": text_key, "text_statements": text_statements, "ecg_statements": ecg_statements}
            embeds = ecg_embeds, text_embeds, *self.contrastive_scalars()
            losses["contrastive_loss"] = configured_contrastive_loss(self.config, self.training, *embeds, **known)
            losses["loss"] = self._weighted_sum(**losses)
        return ESIOutput(
            **losses,
            logits_per_ecg=logits_per_text.T,
            logits_per_text=logits_per_text,
            caption_logits=None if caption is None else caption.logits,
            ecg_embeds=ecg_embeds,
            text_embeds=text_embeds,
            ecg_state=ecg_state,
            ecg_model_output=ecg,
            text_model_output=text,
            decoder_output=caption,
        )

    def _ecg_state(self, ecg: ESIEcgOutput) -> torch.Tensor:
        return self.ecg_norm(self.ecg_head(ecg.pooler_output))

    def _embed_ecg(self, ecg_state: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.ecg_projection(ecg_state), dim=-1)

    def _embed_text(self, text_states: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.text_projection(text_states[:, 0]), dim=-1)

    def _encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs) -> ModelOutput:
        """All tokens; in `released`, where the states are the decoder's input too, all but the last.

        In training in groups, whatever is asked for, so that dropout draws the same with and without a loss.
        """
        pad = self.config.decoder_config.pad_token_id
        is_real = caption_targets(input_ids, attention_mask, 0, pad, IGNORED) != IGNORED
        if self.config.decoder_config.input_states == "text_encoder":
            input_ids, is_real = input_ids[:, :-1], is_real[:, :-1]
            attention_mask = None if attention_mask is None else attention_mask[:, :-1]
        num_groups = self.config.text_groups if self.training else 1
        return encode_by_length(self.text_model, input_ids, attention_mask, is_real, num_groups, **kwargs)

    def tokens_to_predict(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """The decoder's targets `(B, T - 1)`, `IGNORED` in padding: all tokens but the first, in `released` but two."""
        first = 1 if self.config.decoder_config.input_states == "token_embeddings" else 2
        return caption_targets(input_ids, attention_mask, first, self.config.decoder_config.pad_token_id, IGNORED)

    def _caption(
        self,
        ecg: ESIEcgOutput,
        ecg_state: torch.Tensor,
        text: ModelOutput,
        input_ids: torch.Tensor,
        tokens: RealTokens | None,
        **kwargs,
    ) -> ESIDecoderOutput:
        """The decoder over token embeddings, or (`released`) over text states; with `tokens`, over these, no logits.

        Padding stands behind the text: causal attention keeps it from real tokens, the loss ignores it.
        """
        if self.config.decoder_config.input_states == "token_embeddings":
            inputs_embeds = self.get_input_embeddings()(input_ids[:, :-1])
        else:
            inputs_embeds = text.last_hidden_state[:, 1:]
        return self.decoder(
            inputs_embeds=inputs_embeds,
            return_dict=True,
            output_logits=tokens is None,
            real_tokens=tokens,
            **self._caption_context(ecg, ecg_state),
            **kwargs,
        )

    def _caption_context(self, ecg: ESIEcgOutput, ecg_state: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """What the decoder sees of the ECG: its frames, or (`released`) its pooled vector.

        The published model repeats the pooled vector for each token; over equal keys attention is uniform, so one
        copy gives the same output.
        """
        if self.config.decoder_config.ecg_context == "pooled":
            return {"context": ecg_state.unsqueeze(1), "context_mask": None}
        context = self.context_norm(self.context_head(ecg.last_hidden_state))
        return {"context": context, "context_mask": ecg.frame_mask}

    def _caption_loss(
        self,
        caption: ESIDecoderOutput,
        targets: torch.Tensor,
        tokens: RealTokens | None,
        num_targets: torch.Tensor | None,
    ) -> torch.Tensor:
        if num_targets is None:
            num_targets = (targets != IGNORED).sum()
            num_targets = mean_over_processes(num_targets) if self.training else num_targets
        if tokens is None:
            return caption_loss(caption.logits, targets, IGNORED, num_targets)
        head = self.decoder.get_output_embeddings()
        total = vocabulary_loss(caption.last_hidden_state, head.weight, tokens.pack(targets), IGNORED)
        return total / num_targets.to(total.dtype).clamp(min=1)

    def _weighted_sum(self, contrastive_loss: torch.Tensor, caption_loss: torch.Tensor | float = 0.0) -> torch.Tensor:
        config = self.config
        return config.contrastive_loss_weight * contrastive_loss + config.caption_loss_weight * caption_loss

    @torch.no_grad()
    def generate(
        self,
        input_values: torch.Tensor,
        lead_mask: torch.Tensor | None = None,
        sample_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """Write a report for each ECG.

        Args:
            input_values, lead_mask, sample_mask: As in `ESIEcgModel.forward`.
            input_ids: `(B, T)` beginning of the texts, start token first; default the start token alone.
            **kwargs: transformers' generation options (`num_beams`, `do_sample`, `max_new_tokens` (default 128), ...).

        Returns:
            Token ids `(B, T')` with the start token, ended by the end token, then padding.

        Raises:
            ValueError: A model that cannot write: no decoder, the `released` decoder, or no start token known.
        """
        self._check_can_write(input_ids)
        ecg = self.ecg_model(input_values, lead_mask=lead_mask, sample_mask=sample_mask, return_dict=True)
        context = self._caption_context(ecg, self._ecg_state(ecg))
        context["context_kv"] = self.decoder.project_context(context.pop("context"))
        if input_ids is None:
            shape, start = (len(input_values), 1), self.config.decoder_config.bos_token_id
            input_ids = torch.full(shape, start, dtype=torch.long, device=input_values.device)
        if not {"max_new_tokens", "max_length", "generation_config"} & kwargs.keys():
            kwargs["max_new_tokens"] = 128
        if "generation_config" not in kwargs:  # as they stand now: they may have been set after building
            for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
                kwargs.setdefault(name, getattr(self.config.decoder_config, name))
        context = {name: value for name, value in context.items() if value is not None}
        return self.decoder.generate(inputs=input_ids, **context, embed_tokens=self.get_input_embeddings(), **kwargs)

    def _check_can_write(self, input_ids: torch.Tensor | None) -> None:
        if self.decoder is None:
            raise ValueError("generate: this model has no decoder (caption_loss_weight is 0).")
        if self.config.decoder_config.input_states == "text_encoder":
            raise ValueError(
                "generate: a 'released' decoder reads states that already saw the words to be written, so it cannot "
                "write. Train the 'esi' variant (decoder_config.input_states='token_embeddings')."
            )
        if input_ids is None and self.config.decoder_config.bos_token_id is None:
            raise ValueError(
                "generate: decoder_config.bos_token_id is not set. Set it (and eos_token_id) from the tokenizer, "
                "or pass input_ids that begin with the start token."
            )


def _only_hidden_states(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"output_hidden_states": kwargs["output_hidden_states"]} if "output_hidden_states" in kwargs else {}


class ESIForECGClassification(ESIPreTrainedModel):
    """The ECG encoder with a linear head on its pooled vector: multi-label, unless `config.problem_type` says else.

    It loads from the folder of an `ESIModel` (the head is then new) or from its own.

    Example:

    ```python
    >>> import torch
    >>> from modeling_esi import ESIConfig, ESIForECGClassification
    >>> ecg = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 37]}
    >>> model = ESIForECGClassification(ESIConfig(ecg_config=ecg, num_labels=5)).eval()
    >>> model(torch.zeros(2, 12, 500), labels=torch.zeros(2, 5)).logits.shape
    torch.Size([2, 5])

    ```"""

    base_model_prefix = "ecg_model"
    input_modalities = ("audio",)
    _keys_to_ignore_on_load_unexpected = [
        r"^text_model\.", r"^decoder\.", r"^text_projection\.", r"^ecg_(head|norm|projection)\.", r"^context_",
        r"^logit_(scale|bias)$",
    ]  # fmt: skip

    def __init__(self, config: ESIConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.ecg_model = ESIEcgModel._from_config(config.ecg_config)
        self.classifier = nn.Linear(config.ecg_config.hidden_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """A head that starts near indifference, whatever the width of the model around it."""
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.ecg_config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        return self.ecg_model.get_input_embeddings()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        lead_mask: torch.Tensor | None = None,
        sample_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """Classify ECGs.

        Args:
            input_values, lead_mask, sample_mask: As in `ESIEcgModel.forward`.
            labels: Multi-label: `(B, num_labels)` of 0 and 1; single-label: `(B,)` class indices.
        """
        ecg = self.ecg_model(
            input_values, lead_mask=lead_mask, sample_mask=sample_mask, return_dict=True, **_only_hidden_states(kwargs)
        )
        logits = self.classifier(ecg.pooler_output)
        loss = None
        if labels is not None and self.config.problem_type == "single_label_classification":
            loss = F.cross_entropy(logits.float(), labels)
        elif labels is not None:
            loss = F.binary_cross_entropy_with_logits(logits.float(), labels.float())
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=ecg.hidden_states)

# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""`ESIProcessor`: the door for ECGs and the tokenizer for texts, in one object that is saved with the weights."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack


class ESISignalKwargs(TypedDict, total=False):
    """Options of `ESIFeatureExtractor.__call__` that are not about the record itself."""

    crop: str
    generator: torch.Generator | None
    augment: Callable[[torch.Tensor], torch.Tensor] | None
    device: str | torch.device | None


class ESIProcessorKwargs(ProcessingKwargs, total=False):
    """Options of `ESIProcessor.__call__`: those of the signal, and those of the tokenizer."""

    audio_kwargs: ESISignalKwargs  # transformers' slot for what a feature extractor takes
    _defaults = {"text_kwargs": {"padding": True, "truncation": True, "return_token_type_ids": False}}


class ESIProcessor(ProcessorMixin):
    """ECG records and texts to the inputs of an ESI model.

    Args:
        feature_extractor: an `ESIFeatureExtractor`.
        tokenizer: of the text encoder.
        max_text_length: longer texts are cut to so many tokens (500 in ESI, arXiv 2405.19366), or to what the
            tokenizer allows, if that is less.

    Raises:
        ValueError: where `max_text_length` is not a positive whole number.

    >>> import numpy as np
    >>> from tokenizers import Tokenizer
    >>> from tokenizers.models import WordLevel
    >>> from transformers import PreTrainedTokenizerFast
    >>> from modeling_esi.feature_extraction_esi import ESIFeatureExtractor
    >>> from modeling_esi.processing_esi import ESIProcessor
    >>> words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "sinus": 2}, unk_token="[UNK]"))
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    >>> processor = ESIProcessor(ESIFeatureExtractor(), tokenizer)
    >>> signal = np.random.default_rng(0).normal(size=(2, 1800))  # five seconds at 360 Hz, in mV
    >>> inputs = processor(signal, ["sinus"], sampling_rate=360, leads=["II", "V5"])
    >>> {name: tuple(tensor.shape) for name, tensor in inputs.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'input_values': (1, 12, 5000), 'lead_mask': (1, 12), 'sample_mask': (1, 5000),
     'input_ids': (1, 1), 'attention_mask': (1, 1)}
    """

    valid_processor_kwargs = ESIProcessorKwargs

    def __init__(self, feature_extractor: Any, tokenizer: Any, max_text_length: int = 500) -> None:
        if isinstance(max_text_length, bool) or not isinstance(max_text_length, int) or max_text_length < 1:
            raise ValueError(f"max_text_length: expected a positive whole number of tokens, got {max_text_length!r}.")
        self.max_text_length = max_text_length
        super().__init__(feature_extractor, tokenizer)

    def __call__(
        self,
        signal: Any = None,
        text: str | Sequence[str] | None = None,
        sampling_rate: float | Sequence[float] | None = None,
        leads: Sequence[str] | Sequence[Sequence[str]] | None = None,
        unit: str | Sequence[str] | None = None,
        audio: Any = None,
        **kwargs: Unpack[ESIProcessorKwargs],
    ) -> BatchFeature:
        """Records, texts, or both; their numbers need not be equal (one ECG against many sentences).

        Args:
            signal, sampling_rate, leads: as in `ESIFeatureExtractor.__call__`.
            text: one text or a list of them.
            unit: as there; "mV" by default.
            audio: the name under which transformers' general tools pass a signal.
            **kwargs: `crop`, `generator`, `augment`, `device` of the feature extractor; `return_tensors` "pt" or "np";
                any option of the tokenizer (texts are padded to the longest and truncated, unless it is told
                otherwise).

        Returns:
            `input_values (B, 12, S)`, `lead_mask (B, 12)` and, where padded, `sample_mask (B, S)` for signals;
            `input_ids` and `attention_mask`, both `(texts, tokens)`, for texts.

        Raises:
            ValueError: with neither signal nor text, and as in `ESIFeatureExtractor.__call__`.
            TypeError: for an option that neither part knows.
        """
        if audio is not None:
            if signal is not None:
                raise ValueError("expected signal or audio, which mean the same, got both: pass signal.")
            signal = audio
        if signal is None and text is None:
            raise ValueError("expected signal, text or both, got neither.")
        signal_kwargs, text_kwargs = self._split_kwargs(kwargs)
        return_tensors = text_kwargs["return_tensors"]

        features: dict[str, Any] = {}
        if signal is not None:
            described = {"sampling_rate": sampling_rate, "leads": leads, "unit": "mV" if unit is None else unit}
            features |= self.feature_extractor(signal, **described, **signal_kwargs, return_tensors=return_tensors)
        if text is not None:
            features |= self.tokenizer(_check_text(text, text_kwargs), **text_kwargs)
        features = BatchFeature(features, tensor_type=return_tensors)
        device = signal_kwargs.get("device")
        return features.to(device) if device is not None and return_tensors != "np" else features

    @property
    def model_input_names(self) -> list[str]:
        """What a model may receive: `sample_mask` where something was padded; never `token_type_ids`."""
        return [*self.feature_extractor.model_input_names, "input_ids", "attention_mask"]

    def _split_kwargs(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options of the feature extractor and of the tokenizer, defaults included."""
        # a generator must not go through transformers' merging, which copies it: the caller's would never advance
        signal_names = ESISignalKwargs.__annotations__
        signal_kwargs = dict(kwargs.pop("audio_kwargs", {}))
        signal_kwargs |= {name: kwargs.pop(name) for name in list(kwargs) if name in signal_names}
        text_names = ESIProcessorKwargs.__annotations__["text_kwargs"].__annotations__
        known = {"text_kwargs", "common_kwargs", *text_names}
        unknown = sorted((set(kwargs) - known) | (set(signal_kwargs) - set(signal_names)))
        if unknown:
            expected = ", ".join([*signal_names, "return_tensors"])
            raise TypeError(f"ESIProcessor: expected {expected} or options of the tokenizer, got {unknown}.")

        merged = self._merge_kwargs(ESIProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        text_kwargs = merged["text_kwargs"]
        text_kwargs["return_tensors"] = text_kwargs.get("return_tensors") or "pt"
        if text_kwargs.get("max_length") is None and text_kwargs["truncation"] not in (False, "do_not_truncate"):
            text_kwargs["max_length"] = min(self.max_text_length, self.tokenizer.model_max_length)
        return signal_kwargs, text_kwargs


def _check_text(text: Any, text_kwargs: dict[str, Any]) -> list[Any]:
    texts = [text] if isinstance(text, str) else list(text)
    if not texts or not (text_kwargs.get("is_split_into_words") or all(isinstance(t, str) for t in texts)):
        raise ValueError(f"text: expected a string or a list of strings, got {text!r}.")
    return texts

# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""Pipelines of transformers for ESI: a recording in, labels with scores, embeddings or a report out.

A recording is a path, a record (anything with `signal`, `leads` and `sampling_rate`, or a mapping with them), or an
array beside which rate and leads are given.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, PreTrainedModel

from .ecg_pipeline import ESIPipeline, aggregate, check_aggregation
from .pipeline_inputs import PipelineInput

HYPOTHESIS = "ECG Findings: {}."  # the words that ESI's training texts begin with (arXiv 2405.19366)
FEATURES = ("embeds", "pooled", "frames")
_TEXTS_AT_ONCE = 64
_FUNCTIONS = {"sigmoid": torch.sigmoid, "softmax": lambda logits: logits.softmax(dim=-1), "none": lambda logits: logits}


class ESIZeroShotECGClassificationPipeline(ESIPipeline):
    """How well each of your labels fits a recording, by an `ESIModel` that was not trained on them.

    Task `"zero-shot-ecg-classification"`. Each label is put into the template, and its text compared with the ECG.

    Args (beside those of `ESIPipeline`):
        candidate_labels: texts in a list, or in one string with commas between.
        hypothesis_template: with `{}` where the label goes, or several, whose embeddings are averaged. `"{}"` where
            labels are whole sentences.
        multi_label: True (default), each label is judged alone; False, exactly one is taken to be true.
        reference: with `multi_label`, a text that each label is compared with: `"No {}."` (the label's contrary) or
            `"ECG Findings: normal ECG."`, the same for all.
        aggregation: how the windows of a long recording are put together: `"mean"`, or `"max"` for what comes and goes.

    Returns, for each recording, a list of `{"label", "score", "similarity"}`, best first. `similarity` is the cosine of
    ECG and label, -1 to 1. `score` rises with it, from 0 to 1, and **is no calibrated probability**: a threshold has
    to be chosen on recordings whose labels are known. It is

    - `(1 + similarity) / 2`, where the model was trained to tell which text belongs to which ECG (softmax): it learned
      an order, no level at which a label holds;
    - `sigmoid(scale * similarity + bias)`, with the model's own scale and bias, where it was trained to tell whether a
      text belongs to an ECG (sigmoid);
    - with `reference`, `sigmoid(scale * (similarity - similarity of the reference))`: above 0.5 the label fits better
      than the reference. It rises with the similarity within a recording, not from one recording to another;
    - with `multi_label=False`, the softmax of `scale * similarity` over the labels.

    Raises:
        ValueError: without labels, for a template without `{}`, and as every pipeline.
    """

    _load_processor = True
    _load_feature_extractor = False
    models = ("ESIModel",)
    forward_names = ("candidate_labels", "hypothesis_template", "reference")
    postprocess_names = ("candidate_labels", "multi_label", "reference", "aggregation")

    _known_texts: tuple[Any, Tensor, Tensor | None] | None = None

    def __call__(self, inputs: Any, candidate_labels: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
        """As `ESIPipeline.__call__`; labels may come second."""
        self._known_texts = None  # weights may have changed since
        if candidate_labels is not None:
            kwargs["candidate_labels"] = candidate_labels
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if "candidate_labels" in kwargs:
            kwargs["candidate_labels"] = _labels(kwargs["candidate_labels"])
        check_aggregation(kwargs.get("aggregation", "mean"))
        return super()._sanitize_parameters(**kwargs)

    def _run(
        self,
        inputs: dict[str, Tensor],
        candidate_labels: tuple[str, ...] = (),
        hypothesis_template: str | Sequence[str] = HYPOTHESIS,
        reference: str | None = None,
    ) -> dict[str, Any]:
        texts, references = self._text_embeds(_labels(candidate_labels), _templates(hypothesis_template), reference)
        ecg_embeds = self.model.get_ecg_features(**inputs).float()
        similarity = ecg_embeds @ texts.T
        of_reference = 0.0 if references is None else ecg_embeds @ references.T
        return {"similarity": similarity, "margin": similarity - of_reference}

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        candidate_labels: tuple[str, ...] = (),
        multi_label: bool = True,
        reference: str | None = None,
        aggregation: str = "mean",
    ) -> list[dict[str, Any]]:
        """The windows' similarities put together, and the score of each label."""
        similarity, margin = (
            aggregate([output[name][0] for output in model_outputs], aggregation) for name in ("similarity", "margin")
        )
        scores = self._scores(similarity, margin if reference is not None else None, multi_label)
        results = zip(candidate_labels, scores.tolist(), similarity.tolist(), strict=True)
        return _best_first([{"label": label, "score": score, "similarity": cosine} for label, score, cosine in results])

    def _scores(self, similarity: Tensor, margin: Tensor | None, multi_label: bool) -> Tensor:
        scale = self.model.get_logit_scale().item()
        if not multi_label:
            return (scale * similarity).softmax(dim=-1)
        if margin is not None:
            return (scale * margin).sigmoid()
        if self.model.config.contrastive_loss_type == "sigmoid":
            return (scale * similarity + self.model.logit_bias.item()).sigmoid()
        return (1 + similarity.clamp(-1, 1)) / 2

    def _text_embeds(
        self, labels: tuple[str, ...], templates: tuple[str, ...], reference: str | None
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings of labels `(labels, P)` and of what each, or all, are compared with; computed once for a call."""
        asked = (labels, templates, reference)
        if self._known_texts is None or self._known_texts[0] != asked:
            of_each = labels if reference is not None and "{}" in reference else ("",)
            references = None if reference is None else self._embed(of_each, (reference,))
            self._known_texts = (asked, self._embed(labels, templates), references)
        return self._known_texts[1:]

    def _embed(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """Mean over templates of each label's text, at length 1 again, `(labels, P)` float32."""
        total = torch.zeros((), device=self.device)
        for template in templates:
            texts = [template.replace("{}", label) for label in labels]
            parts = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
            inputs = [self.processor(text=part).to(self.device) for part in parts]
            total = total + torch.cat([self.model.get_text_features(**part).float() for part in inputs])
        return F.normalize(total, dim=-1)


class ESIECGClassificationPipeline(ESIPipeline):
    """Labels of a recording with their probabilities, by an `ESIForECGClassification` that was trained on them.

    Task `"ecg-classification"`.

    Args (beside those of `ESIPipeline`):
        top_k: how many labels; all by default.
        function_to_apply: `"sigmoid"` (default of a multi-label model), `"softmax"` (of a single-label one) or
            `"none"`, which gives logits.
        aggregation: how the windows of a long recording are put together: `"mean"` or `"max"` of their scores.

    Returns, for each recording, a list of `{"label", "score"}`, best first. Where the model's configuration has
    thresholds that were chosen on validation records (`label_thresholds`, of sigmoids), `above_threshold` says whether
    the score reaches the label's.

    Raises:
        ValueError: for a `top_k` or a function that is none, and as every pipeline.
    """

    _load_processor = None
    _load_feature_extractor = None
    models = ("ESIForECGClassification",)
    auto_class = "AutoModelForSequenceClassification"
    postprocess_names = ("top_k", "function_to_apply", "aggregation")

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_aggregation(kwargs.get("aggregation", "mean"))
        top_k, function = kwargs.get("top_k"), kwargs.get("function_to_apply")
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k: expected a positive whole number or None for all, got {top_k!r}.")
        if function is not None and function not in _FUNCTIONS:
            raise ValueError(f"function_to_apply: expected one of {', '.join(_FUNCTIONS)}, got {function!r}.")
        return super()._sanitize_parameters(**kwargs)

    def _run(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        return {"logits": self.model(**inputs).logits.float()}

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        top_k: int | None = None,
        function_to_apply: str | None = None,
        aggregation: str = "mean",
    ) -> list[dict[str, Any]]:
        """The windows' scores put together, with the names of the labels."""
        config = self.model.config
        is_single = config.problem_type == "single_label_classification"
        function = function_to_apply or ("softmax" if is_single else "sigmoid")
        scores = aggregate([_FUNCTIONS[function](output["logits"][0]) for output in model_outputs], aggregation)
        results = [{"label": config.id2label[i], "score": score} for i, score in enumerate(scores.tolist())]
        thresholds = getattr(config, "label_thresholds", None) or {}
        for result in results if function == "sigmoid" else ():
            if result["label"] in thresholds:
                result["above_threshold"] = result["score"] >= thresholds[result["label"]]
        return _best_first(results)[:top_k]


class ESIFeatureExtractionPipeline(ESIPipeline):
    """A recording as numbers.

    Task `"ecg-feature-extraction"`.

    Args (beside those of `ESIPipeline`):
        features: `"embeds"`, the embedding shared with texts, `(P,)` of length 1 (default of `ESIModel`); `"pooled"`,
            the encoder's own vector, `(H,)` (default of other models); `"frames"`, its steps in time, `(F, H)`, those
            of padding left out.
        return_tensors: True for a tensor, False (default) for lists of numbers.

    Windows of a long recording: the mean of their vectors (of embeddings, brought to length 1 again); their frames one
    window after the other.

    Raises:
        ValueError: for features that the model does not have, and as every pipeline.
    """

    _load_processor = None
    _load_feature_extractor = None
    models = ("ESIModel", "ESIEcgModel", "ESIForECGClassification")
    forward_names = ("features",)
    postprocess_names = ("features", "return_tensors")

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        joint = type(self.model).__name__ == "ESIModel"
        features = kwargs.get("features")
        if features not in (None, *FEATURES) or (features == "embeds" and not joint):
            known = FEATURES if joint else FEATURES[1:]
            raise ValueError(f"features: expected {', '.join(known)} of {type(self.model).__name__}, got {features!r}.")
        return super()._sanitize_parameters(**kwargs)

    def _run(self, inputs: dict[str, Tensor], features: str | None = None) -> dict[str, Any]:
        if self._chosen(features) == "embeds":
            return {"vectors": self.model.get_ecg_features(**inputs).float()}
        output = getattr(self.model, "ecg_model", self.model)(**inputs, return_dict=True)
        if features != "frames":
            return {"vectors": output.pooler_output.float()}
        frames, mask = output.last_hidden_state.float(), output.frame_mask
        return {"frames": frames, "mask": torch.ones_like(frames[..., 0], dtype=torch.bool) if mask is None else mask}

    def postprocess(
        self, model_outputs: list[dict[str, Any]], features: str | None = None, return_tensors: bool = False
    ) -> Any:
        """The windows' vectors or frames put together."""
        if features == "frames":
            result = torch.cat([output["frames"][0][output["mask"][0]] for output in model_outputs])
        else:
            result = aggregate([output["vectors"][0] for output in model_outputs], "mean")
            if self._chosen(features) == "embeds":
                result = F.normalize(result, dim=-1)
        return result if return_tensors else result.tolist()

    def _chosen(self, features: str | None) -> str:
        return features or ("embeds" if type(self.model).__name__ == "ESIModel" else "pooled")


class ESIToTextPipeline(ESIPipeline):
    """A report of a recording, written by an `ESIModel` that can write. It can be fluent and wrong.

    Task `"ecg-to-text"`.

    Args (beside those of `ESIPipeline`):
        max_new_tokens, num_beams, do_sample and all other options of `generate`, as they are or in `generate_kwargs`.
        windows: of a long recording, `"first"` (default): the report is that of its first usable window, as long as
            the recordings that the model was trained on; or `"all"`: one report for each, with `start` and `end` in
            seconds.

    Returns, for each recording, a list of `{"generated_text"}`, as other pipelines that write: one, or as many as
    `num_return_sequences`.

    Raises:
        ValueError: for a model that cannot write, and as every pipeline.
    """

    _load_processor = True
    _load_feature_extractor = False
    models = ("ESIModel",)
    preprocess_names = (*ESIPipeline.preprocess_names, "windows")
    forward_names = ("generate_kwargs",)
    postprocess_names = ("windows",)

    def _check_model(self) -> None:
        super()._check_model()
        if not can_write(self.model):
            raise ValueError(f"{self.task}: expected a model that can write, got one without decoder, or 'released'.")

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs.get("windows", "first") not in ("first", "all"):
            raise ValueError(f"windows: expected 'first' or 'all', got {kwargs['windows']!r}.")
        generate_kwargs = dict(kwargs.pop("generate_kwargs", None) or {})
        options = vars(GenerationConfig()).keys() | {"generation_config"}
        generate_kwargs |= {name: kwargs.pop(name) for name in options & kwargs.keys()}
        preprocess_kwargs, _, postprocess_kwargs = super()._sanitize_parameters(**kwargs)
        return preprocess_kwargs, generate_kwargs, postprocess_kwargs

    def preprocess(self, inputs: PipelineInput, windows: str = "first", **kwargs: Any) -> Iterator[dict[str, Any]]:
        """As of `ESIPipeline`, or the first window alone."""
        for features in super().preprocess(inputs, **kwargs):
            if windows == "first":
                yield {**features, "is_last": True}
                return
            yield features

    def _run(self, inputs: dict[str, Tensor], **generate_kwargs: Any) -> dict[str, Any]:
        token_ids = self.model.generate(**inputs, **generate_kwargs)
        return {"token_ids": token_ids.view(len(inputs["input_values"]), -1, token_ids.shape[-1])}

    def postprocess(self, model_outputs: list[dict[str, Any]], windows: str = "first") -> list[dict[str, Any]]:
        """The words of the tokens."""
        results = []
        for output in model_outputs:
            texts = self.processor.batch_decode(output["token_ids"][0], skip_special_tokens=True)
            place = {"start": output["start"], "end": output["end"]} if windows == "all" else {}
            results += [{"generated_text": text} | place for text in texts]
        return results


# ----- what a saved folder says of its pipelines ---------------------------------------------------------------------

PIPELINES: dict[str, type[ESIPipeline]] = {
    "zero-shot-ecg-classification": ESIZeroShotECGClassificationPipeline,
    "ecg-classification": ESIECGClassificationPipeline,
    "ecg-feature-extraction": ESIFeatureExtractionPipeline,
    "ecg-to-text": ESIToTextPipeline,
}


def can_write(model: PreTrainedModel) -> bool:
    """Whether `generate` can write reports: there is a decoder, and it was not trained on states that saw them."""
    return getattr(model, "decoder", None) is not None and model.config.decoder_config.input_states != "text_encoder"


def pipelines_of(model: PreTrainedModel) -> dict[str, dict[str, Any]]:
    """The pipelines that a folder of this model serves, as `config.json` names them (`custom_pipelines`)."""
    name = type(model).__name__
    loads = {"ESIForECGClassification": "AutoModelForSequenceClassification"}.get(name, "AutoModel")
    return {
        task: {"impl": f"pipeline_esi.{pipeline.__name__}", "pt": [loads], "type": "multimodal"}
        for task, pipeline in PIPELINES.items()
        if name in pipeline.models and pipeline.auto_class == loads and (task != "ecg-to-text" or can_write(model))
    }


# ----- parts ---------------------------------------------------------------------------------------------------------


def _best_first(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(results, key=lambda result: -result["score"])


def _labels(labels: str | Sequence[str]) -> tuple[str, ...]:
    listed = labels.split(",") if isinstance(labels, str) else labels
    labels = tuple(label.strip() if isinstance(label, str) else label for label in listed)
    if not labels or not all(isinstance(label, str) and label for label in labels):
        raise ValueError(f"candidate_labels: expected texts, such as ['atrial fibrillation'], got {list(labels)}.")
    return labels


def _templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    wrong = [template for template in templates if "{}" not in template]
    if wrong or not templates:
        raise ValueError(
            f"hypothesis_template: expected '{{}}' where the label goes, got {wrong[0] if wrong else templates!r}."
        )
    return templates

"""Text encoders of transformers as ESI takes them: any architecture, without what no loss would train."""

import inspect

from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING


def build_text_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A fresh text encoder of any architecture, without the pooler that no loss would train."""
    model_class = MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        return AutoModel.from_config(config)
    return model_class._from_config(config, **({"add_pooling_layer": False} if _can_pool(model_class) else {}))


def _can_pool(model_class: type) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class.__init__).parameters


def without_pooler(text_model: PreTrainedModel) -> PreTrainedModel:
    """Drop the pooler of a loaded encoder: parameters without a gradient stop distributed training."""
    if _can_pool(type(text_model)):
        text_model.pooler = None
    return text_model


def holders_of(table: nn.Module, model: nn.Module) -> set[str]:
    """Names of the classes that hold the token table: it is read outside of them, so no engine may shard them alone."""
    return {type(module).__name__ for module in model.modules() if table in module.children()}

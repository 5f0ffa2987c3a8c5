"""ESI, an ECG-text foundation model: public names in the order data flows, and their registration with transformers."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .card_changes import card_before_push
from .configuration_esi import (
    ENCODER_PRESETS,
    LEADS,
    MIMIC_LEADS,
    ESIConfig,
    ESIDecoderConfig,
    ESIEcgConfig,
)
from .feature_extraction_esi import ESIFeatureExtractor
from .modeling_esi import (
    ESIEcgModel,
    ESIEcgOutput,
    ESIForECGClassification,
    ESIModel,
    ESIOutput,
    ESIPreTrainedModel,
)
from .pipeline_esi import (
    ESIECGClassificationPipeline,
    ESIFeatureExtractionPipeline,
    ESIToTextPipeline,
    ESIZeroShotECGClassificationPipeline,
)
from .processing_esi import ESIProcessor

__all__ = [
    "ENCODER_PRESETS",
    "LEADS",
    "MIMIC_LEADS",
    "ESIConfig",
    "ESIDecoderConfig",
    "ESIEcgConfig",
    "ESIFeatureExtractor",
    "ESIProcessor",
    "ESIEcgModel",
    "ESIEcgOutput",
    "ESIForECGClassification",
    "ESIModel",
    "ESIOutput",
    "ESIZeroShotECGClassificationPipeline",
    "ESIECGClassificationPipeline",
    "ESIFeatureExtractionPipeline",
    "ESIToTextPipeline",
]

AutoConfig.register(ESIConfig.model_type, ESIConfig)
AutoConfig.register(ESIEcgConfig.model_type, ESIEcgConfig)
AutoFeatureExtractor.register(ESIConfig, ESIFeatureExtractor)
AutoProcessor.register(ESIConfig, ESIProcessor)
AutoModel.register(ESIConfig, ESIModel)
AutoModel.register(ESIEcgConfig, ESIEcgModel)
AutoModelForSequenceClassification.register(ESIConfig, ESIForECGClassification)

# Saving then copies the code into the folder, so that it loads where this package is not installed.
ESIConfig.register_for_auto_class()
ESIEcgConfig.register_for_auto_class()
ESIFeatureExtractor.register_for_auto_class()
ESIProcessor.register_for_auto_class()
ESIModel.register_for_auto_class("AutoModel")
ESIEcgModel.register_for_auto_class("AutoModel")
ESIForECGClassification.register_for_auto_class("AutoModelForSequenceClassification")

PIPELINE_REGISTRY.register_pipeline(
    "zero-shot-ecg-classification", ESIZeroShotECGClassificationPipeline, pt_model=AutoModel, type="multimodal"
)
PIPELINE_REGISTRY.register_pipeline(
    "ecg-classification", ESIECGClassificationPipeline, pt_model=AutoModelForSequenceClassification, type="multimodal"
)
PIPELINE_REGISTRY.register_pipeline(
    "ecg-feature-extraction", ESIFeatureExtractionPipeline, pt_model=AutoModel, type="multimodal"
)
PIPELINE_REGISTRY.register_pipeline("ecg-to-text", ESIToTextPipeline, pt_model=AutoModel, type="multimodal")

# A plain `model.push_to_hub(...)` then has a card of facts instead of an empty one.
ESIPreTrainedModel.write_card = card_before_push

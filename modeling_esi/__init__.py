"""ESI, an ECG-text foundation model: public names in the order data flows, and their registration with transformers."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from .configuration_esi import (
    ENCODER_PRESETS,
    LEADS,
    MIMIC_LEADS,
    ESIConfig,
    ESIDecoderConfig,
    ESIEcgConfig,
)
from .feature_extraction_esi import ESIFeatureExtractor
from .modeling_esi import ESIEcgModel, ESIEcgOutput, ESIForECGClassification, ESIModel, ESIOutput
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

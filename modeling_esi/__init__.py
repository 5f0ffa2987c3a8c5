"""ESI, an ECG-text foundation model: public names in the order data flows, and their registration with transformers."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from .configuration_esi import (
    ENCODER_PRESETS,
    LEADS,
    MIMIC_LEADS,
    ESIConfig,
    ESIDecoderConfig,
    ESIEcgConfig,
)
from .modeling_esi import ESIEcgModel, ESIEcgOutput, ESIForECGClassification, ESIModel, ESIOutput

__all__ = [
    "ENCODER_PRESETS",
    "LEADS",
    "MIMIC_LEADS",
    "ESIConfig",
    "ESIDecoderConfig",
    "ESIEcgConfig",
    "ESIEcgModel",
    "ESIEcgOutput",
    "ESIForECGClassification",
    "ESIModel",
    "ESIOutput",
]

AutoConfig.register(ESIConfig.model_type, ESIConfig)
AutoConfig.register(ESIEcgConfig.model_type, ESIEcgConfig)
AutoModel.register(ESIConfig, ESIModel)
AutoModel.register(ESIEcgConfig, ESIEcgModel)
AutoModelForSequenceClassification.register(ESIConfig, ESIForECGClassification)

# Saving then copies the code into the folder, so that it loads where this package is not installed.
ESIConfig.register_for_auto_class()
ESIEcgConfig.register_for_auto_class()
ESIModel.register_for_auto_class("AutoModel")
ESIEcgModel.register_for_auto_class("AutoModel")
ESIForECGClassification.register_for_auto_class("AutoModelForSequenceClassification")

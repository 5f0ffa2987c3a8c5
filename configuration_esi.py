"""The Hub's name for the configuration: one set of classes, two import paths."""

from modeling_esi.configuration_esi import ESIConfig, ESIDecoderConfig, ESIEcgConfig

__all__ = ["ESIConfig", "ESIDecoderConfig", "ESIEcgConfig"]

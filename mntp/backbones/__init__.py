"""Backbones: inputs -> context vectors."""

from mntp.backbones.base import Backbone, BackboneFactory
from mntp.backbones.causal import CausalBackboneFactory, CausalTransformer
from mntp.backbones.masked import MaskedBackboneFactory, MaskedEncoderDecoder

BACKBONES: dict[str, type[Backbone]] = {cls.__name__: cls for cls in (CausalTransformer, MaskedEncoderDecoder)}

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneFactory",
    "CausalBackboneFactory",
    "CausalTransformer",
    "MaskedBackboneFactory",
    "MaskedEncoderDecoder",
]

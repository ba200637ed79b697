"""Backbones: inputs -> context vectors."""

from mntp.backbones.base import Backbone, BackboneFactory, TransformerBackbone
from mntp.backbones.causal import CausalBackbone, CausalBackboneFactory, CausalTransformer
from mntp.backbones.masked import MaskedBackboneFactory, MaskedEncoderDecoder
from mntp.backbones.short_context import ShortContext, ShortContextFactory, SummedContext

BACKBONES: dict[str, type[Backbone]] = {cls.__name__: cls for cls in (CausalTransformer, MaskedEncoderDecoder)}

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneFactory",
    "CausalBackbone",
    "CausalBackboneFactory",
    "CausalTransformer",
    "MaskedBackboneFactory",
    "MaskedEncoderDecoder",
    "ShortContext",
    "ShortContextFactory",
    "SummedContext",
    "TransformerBackbone",
]

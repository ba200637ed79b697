"""Backbones: inputs -> context vectors."""

from mntp.backbones.base import Backbone
from mntp.backbones.causal import CausalTransformer
from mntp.backbones.masked import MaskedEncoderDecoder

BACKBONES: dict[str, type[Backbone]] = {
    cls.__name__: cls for cls in (CausalTransformer, MaskedEncoderDecoder)
}

__all__ = ["BACKBONES", "Backbone", "CausalTransformer", "MaskedEncoderDecoder"]

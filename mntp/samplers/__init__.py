"""Samplers: the order in which tokens are drawn."""

from mntp.samplers.autoregressive import decode_autoregressive
from mntp.samplers.base import Decoding, MaskedDecoding
from mntp.samplers.masked import cosine_counts, decode_masked
from mntp.samplers.noise import ClipNoise

__all__ = [
    "ClipNoise",
    "Decoding",
    "MaskedDecoding",
    "cosine_counts",
    "decode_autoregressive",
    "decode_masked",
]

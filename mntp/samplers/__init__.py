"""Samplers: the order in which tokens are drawn."""

from mntp.samplers.autoregressive import decode_autoregressive
from mntp.samplers.drawing import TokenDrawer
from mntp.samplers.masked import cosine_counts, decode_masked
from mntp.samplers.noise import ClipNoise
from mntp.samplers.settings import Decoding, DecodingState, MaskedDecoding, ParallelDecoding

__all__ = [
    "ClipNoise",
    "Decoding",
    "DecodingState",
    "MaskedDecoding",
    "ParallelDecoding",
    "TokenDrawer",
    "cosine_counts",
    "decode_autoregressive",
    "decode_masked",
]

"""Heads: the distribution of a token given its context."""

from mntp.heads.base import Head, HeadFactory
from mntp.heads.diffusion import DiffusionHead

HEADS: dict[str, type[Head]] = {cls.__name__: cls for cls in (DiffusionHead,)}

__all__ = ["HEADS", "DiffusionHead", "Head", "HeadFactory"]

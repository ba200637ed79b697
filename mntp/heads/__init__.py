"""Heads: the distribution of a token given its context."""

from mntp.heads.base import Head, HeadFactory, HeadSampling
from mntp.heads.diffusion import DiffusionHead
from mntp.heads.flow import FlowMatchingHead
from mntp.heads.mixture import MixtureHead

HEADS: dict[str, type[Head]] = {cls.__name__: cls for cls in (DiffusionHead, FlowMatchingHead, MixtureHead)}

__all__ = ["HEADS", "DiffusionHead", "FlowMatchingHead", "Head", "HeadFactory", "HeadSampling", "MixtureHead"]

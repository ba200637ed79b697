"""Heads: the distribution of a token given its context."""

from mntp.heads.base import Head, HeadFactory
from mntp.heads.diffusion import DiffusionHead, DiffusionSampling
from mntp.heads.flow import FlowMatchingHead, FlowSampling
from mntp.heads.mixture import MixtureHead, MixtureSampling
from mntp.heads.settings import HeadSampling, SolverSampling

HEADS: dict[str, type[Head]] = {cls.__name__: cls for cls in (DiffusionHead, FlowMatchingHead, MixtureHead)}

__all__ = [
    "HEADS",
    "DiffusionHead",
    "DiffusionSampling",
    "FlowMatchingHead",
    "FlowSampling",
    "Head",
    "HeadFactory",
    "HeadSampling",
    "MixtureHead",
    "MixtureSampling",
    "SolverSampling",
]

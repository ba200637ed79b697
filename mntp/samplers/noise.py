"""Noise for decoding, drawn for each clip from a seed of its own: a clip's sound doesn't depend on its batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mntp.seeding import make_generator


class ClipNoise:
    """Standard normal draws and orders, clip by clip.

    Args:
        seeds: one integer for each of the B clips.
        device: where the draws are wanted; they are made on the CPU, so that every device gets the same.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [make_generator("decode", seed) for seed in seeds]
        self._device = device

    def normal(self, *shape: int) -> Tensor:
        """Draw [B, *shape]."""
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators]).to(self._device)

    def orders(self, num_tokens: int) -> Tensor:
        """A random order of positions for each clip, [B, N] int64."""
        return torch.stack([torch.randperm(num_tokens, generator=g) for g in self._generators]).to(self._device)

"""How tokens at masked positions are corrupted where they are not dropped. B clips, N tokens of a clip, D values."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

MaskingMode = Literal["none", "zero", "gaussian", "noise", "noise_linear", "drop"]


class Corruption(ABC):
    """Replaces tokens at masked positions. A subclass of your own goes by its dotted path in `masking_mode`.

    Attributes:
        needs_mask_ratio: whether a distribution of the mask ratio is required. Without one, every position is
            corrupted, which leaves something to learn only where corrupted tokens still tell of the clean ones.
    """

    needs_mask_ratio: ClassVar[bool] = True

    def __call__(self, tokens: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        """Corrupt the inputs of a training step.

        Args:
            tokens: [B, N, D].
            mask: [B, N] bool, True at masked positions; None corrupts all.
            generator: on the device of the tokens.

        Returns:
            [B, N, D].
        """
        corrupted = self.corrupted(tokens, generator)
        return corrupted if mask is None else torch.where(mask[..., None], corrupted, tokens)

    @abstractmethod
    def corrupted(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """What stands at each position [B, N, D] where it is masked."""


class Zero(Corruption):
    """Zeros (Table 3, rows C and F)."""

    def corrupted(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Zeros [B, N, D]; draws nothing."""
        return torch.zeros_like(tokens)


class Gaussian(Corruption):
    """Noise from N(0, I), which tells nothing of the token (Table 3, row D)."""

    def corrupted(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Noise [B, N, D]."""
        return _noise(tokens, generator)


class VPNoise(Corruption):
    """Variance-preserving noise sqrt(1 - k) x + sqrt(k) eps, a level k for each position (CALM, arXiv 2509.06926).

    Args:
        max_level: levels are uniform on [0, max_level].

    Raises:
        ValueError: max_level is not in (0, 1].
    """

    needs_mask_ratio = False

    def __init__(self, max_level: float = 1.0) -> None:
        if not 0 < max_level <= 1:
            raise ValueError(f"masking_mode: max_level is {max_level}, expected a number above 0 and at most 1")
        self.max_level = max_level

    def corrupted(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Noisy tokens [B, N, D]."""
        level = self._levels(tokens, generator)
        return (1 - level).sqrt() * tokens + level.sqrt() * _noise(tokens, generator)

    def _levels(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        shape = (*tokens.shape[:2], 1)
        return self.max_level * torch.rand(shape, generator=generator, device=tokens.device, dtype=tokens.dtype)


class LinearNoise(VPNoise):
    """Linear noise: (1 - k) x + k eps, which lowers the variance in between. CALM found it worse than VPNoise.

    Args:
        max_level: levels are uniform on [0, max_level].

    Raises:
        ValueError: max_level is not in (0, 1].
    """

    def corrupted(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Noisy tokens [B, N, D]."""
        return torch.lerp(tokens, _noise(tokens, generator), self._levels(tokens, generator))


CORRUPTIONS: dict[str, type[Corruption]] = {
    "zero": Zero,
    "gaussian": Gaussian,
    "noise": VPNoise,
    "noise_linear": LinearNoise,
}


def _noise(tokens: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tokens.shape, generator=generator, device=tokens.device, dtype=tokens.dtype)

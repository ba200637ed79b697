"""Which tokens of a clip are masked, and which are kept. B clips, N tokens of a clip."""

import math

import torch
from torch import Tensor


def random_mask(batch: int, num_tokens: int, num_hidden: int, generator: torch.Generator) -> Tensor:
    """Hide `num_hidden` random positions of each clip, different ones for each -> [B, N] bool, True = hidden."""
    order = torch.rand(batch, num_tokens, generator=generator, device=generator.device).argsort(dim=1)
    return order < num_hidden


def num_hidden_when_dropping(ratio: float, num_tokens: int) -> int:
    """round(N r), but at least one token is kept."""
    return min(round(num_tokens * ratio), num_tokens - 1)


def num_hidden_in_mar(ratio: float, num_tokens: int) -> int:
    """ceil(N r), as MAR hides; at least one, since only hidden tokens are scored."""
    return max(1, math.ceil(num_tokens * ratio))


def kept_positions(mask: Tensor, num_hidden: int | None = None) -> Tensor:
    """Positions that are not hidden, in order.

    Args:
        mask: [B, N] bool, as many hidden in every clip.
        num_hidden: how many; None counts them, for which the host waits for the device.

    Returns:
        [B, N - num_hidden] int64.
    """
    if num_hidden is None:
        num_hidden = int(mask[0].sum())
    return mask.int().argsort(dim=1, stable=True)[:, : mask.shape[1] - num_hidden]


def in_random_order(positions: Tensor, generator: torch.Generator) -> Tensor:
    """Positions [B, T] of each clip in an order of their own."""
    draws = torch.rand(positions.shape, generator=generator, device=generator.device)
    return positions.gather(1, draws.argsort(dim=1))

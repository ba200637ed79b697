"""Bootstrap over clips: the same draws for every system, so that two of them can be compared pair by pair.

A score's *replicates* are its values on sets of n clips drawn with replacement from the n that were scored. The draws
are a function of n alone: replicate b of one system and replicate b of another rest on the same clips, and their
difference is a replicate of the difference.
"""

import torch
from torch import Tensor

from mntp.seeding import make_generator

NUM_REPLICATES = 1000


def draw_clips(num_clips: int, num_replicates: int = NUM_REPLICATES) -> Tensor:
    """Rows of drawn clips [num_replicates, num_clips], int64, a function of the arguments alone."""
    generator = make_generator("bootstrap over clips", num_clips)
    return torch.randint(num_clips, (num_replicates, num_clips), generator=generator)


def count_draws(draws: Tensor) -> Tensor:
    """How often each clip was drawn: [num_replicates, num_clips] float64."""
    counts = torch.zeros(draws.shape, dtype=torch.float64)
    return counts.scatter_add_(1, draws, torch.ones_like(counts))


def mean_replicates(total: Tensor, draws: Tensor, weight: Tensor | None = None) -> Tensor:
    """Replicates [num_replicates] of a mean over clips.

    Args:
        total: [n] sum of a clip's values.
        draws: as of `draw_clips`.
        weight: [n] number of a clip's values; one each if None. A replicate without any is NaN.
    """
    counts = count_draws(draws)
    weight = torch.ones_like(total) if weight is None else weight
    return (counts @ total.double()) / (counts @ weight.double())

"""Fidelity apart from variety: how the neighbourhoods of two sets of features overlap."""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_NEIGHBOURS = 5  # as in Naeem et al.


class Neighbourhoods(NamedTuple):
    """Fidelity and variety of generated clips.

    Attributes:
        precision: share of generated clips that lie in the ball of some reference.
        recall: share of references that lie in the ball of some generated clip.
        density: number of references' balls that hold a generated clip, divided by k, averaged; may exceed 1.
        coverage: share of references whose ball holds some generated clip.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(generated: Tensor, reference: Tensor, num_neighbours: int = NUM_NEIGHBOURS) -> Neighbourhoods:
    """Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797).

    A clip's ball reaches to its k-th nearest neighbour in its own set, itself not counted; balls hold what lies on
    their rim in precision and recall, and not in density and coverage, as in the papers' code.

    Args:
        generated: [n, F].
        reference: [m, F].
        num_neighbours: k.

    Raises:
        ValueError: the widths differ, a set has no more than k rows, or a value isn't finite.
    """
    if generated.ndim != 2 or generated.shape[1:] != reference.shape[1:]:
        raise ValueError(f"expected features [n, F] and [m, F], got {list(generated.shape)}, {list(reference.shape)}")
    if min(len(generated), len(reference)) <= num_neighbours:
        raise ValueError(
            f"{num_neighbours} neighbours need at least {num_neighbours + 1} clips, "
            f"got {len(generated)} and {len(reference)}"
        )
    if not (generated.isfinite().all() and reference.isfinite().all()):
        raise ValueError("features hold NaN or infinite values: check the audio that they were computed from")
    across = _distances(reference, generated)
    reach_reference, reach_generated = (_reach(rows, num_neighbours) for rows in (reference, generated))
    inside = across < reach_reference[:, None]
    return Neighbourhoods(
        precision=(across <= reach_reference[:, None]).any(0).double().mean().item(),
        recall=(across <= reach_generated).any(1).double().mean().item(),
        density=(inside.sum(0).double().mean() / num_neighbours).item(),
        coverage=inside.any(1).double().mean().item(),
    )


def _reach(rows: Tensor, num_neighbours: int) -> Tensor:
    """Distance [n] of each row to its k-th nearest other row."""
    return _distances(rows, rows).kthvalue(num_neighbours + 1, dim=1).values  # the nearest is the row itself


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")

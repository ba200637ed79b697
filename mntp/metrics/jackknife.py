"""Scores with their spread over clips, by the jackknife: leave out one clip (both partners of a pair) at a time.

With theta the score of all n clips and theta_i that without clip i, the *pseudo-value* of clip i is
n theta - (n - 1) theta_i (Tukey 1958; Efron and Tibshirani, An Introduction to the Bootstrap, chapter 11). The mean of
the pseudo-values is the score without its bias of order 1 / n, and their standard error is that of the score. The
pseudo-values of a mean are the clips' own values. Pseudo-values of two systems on the same clips are compared clip by
clip.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_CLIPS = 3
"""Fewer can't be left out one by one and still leave a covariance."""


@dataclass(frozen=True)
class Score:
    """A score, and what each clip contributes to it.

    Attributes:
        value: the score.
        clips: [n] float64 pseudo-values, whose mean is `value`; empty where the score has none.
        comparable: whether differences of this score may be tested. A raw Frechet distance isn't comparable, because
            its bias depends on the system (arXiv 1911.07023).
        floor: the least value that the quantity can have; its interval ends there.
    """

    value: float
    clips: Tensor
    comparable: bool = True
    floor: float = -math.inf


def only_value(value: float) -> Score:
    """A score without a known spread."""
    return Score(value, torch.empty(0, dtype=torch.float64))


def mean_score(values: Tensor) -> Score:
    """The mean of the clips' values [n]."""
    values = values.double()
    return Score(values.mean().item(), values)


def corrected(whole: float, left_out: Tensor, floor: float = -math.inf) -> Score:
    """A score without its bias of order 1 / n.

    Args:
        whole: the score of all clips.
        left_out: [n] the score without each of them.
        floor: as of `Score`.

    Raises:
        ValueError: there are fewer than three clips.
    """
    num_clips = _count(left_out)
    clips = num_clips * whole - (num_clips - 1) * left_out.double()  # pseudo-values
    return Score(clips.mean().item(), clips, floor=floor)


def as_defined(value: float, left_out: Tensor, comparable: bool = True, floor: float = -math.inf) -> Score:
    """A score with the bias that its definition has: the jackknife gives the spread alone.

    Args:
        value: the score of all clips.
        left_out: [n] the score without each of them, or an estimate of the same quantity.
        comparable: as of `Score`.
        floor: as of `Score`.

    Raises:
        ValueError: there are fewer than three clips.
    """
    left_out = left_out.double()
    return Score(value, value - (_count(left_out) - 1) * (left_out - left_out.mean()), comparable, floor)


def ratio_pseudo_values(totals: Tensor, counts: Tensor) -> Tensor:
    """Pseudo-values [n] of a mean over all values of all clips; their own mean is that mean. [0] of less than 3 clips.

    Args:
        totals: [n] sum of each clip's values.
        counts: [n] number of each clip's values.
    """
    if len(totals) < MIN_CLIPS:  # of a held-out set, which needn't have any: no reason to refuse its run
        return torch.empty(0, dtype=torch.float64)
    totals, counts = totals.double(), counts.double()
    whole = (totals.sum() / counts.sum()).item()
    left_out = (totals.sum() - totals) / (counts.sum() - counts)
    return as_defined(whole, left_out).clips


def _count(left_out: Tensor) -> int:
    if len(left_out) < MIN_CLIPS:
        raise ValueError(f"intervals need at least {MIN_CLIPS} clips, got {len(left_out)}: add clips")
    return len(left_out)

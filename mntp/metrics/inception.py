"""Inception score: confident predictions for each clip, varied predictions over the set."""

from itertools import pairwise

import torch
from torch import Tensor


def inception_score(log_p: Tensor, num_splits: int = 1) -> float:
    """exp of the mean KL(p_i || mean of p), in float64; averaged over consecutive splits of the rows.

    Lies between 1 (all rows alike) and K (every class predicted surely and equally often). With more than one
    split the order of the rows matters: shuffle them before the call where the definition asks for it.

    Args:
        log_p: [n, K] log-probabilities, each row normalised.
        num_splits: split s holds the rows s * n // num_splits up to (s + 1) * n // num_splits.

    Raises:
        ValueError: a split would be empty, `log_p` isn't [n, K], or a value is NaN or +inf.
    """
    return inception_scores(log_p, num_splits).mean().item()


def inception_scores(log_p: Tensor, num_splits: int = 1) -> Tensor:
    """The score of each split, [num_splits] float64; arguments and errors as of `inception_score`."""
    _check(log_p, num_splits)
    every = torch.arange(len(log_p))[None]
    return _split_scores(log_p, every, num_splits)[0]


def inception_replicates(log_p: Tensor, draws: Tensor, num_splits: int = 1) -> Tensor:
    """The score on resampled clips, [num_replicates] float64, the splits taken in the order of the draws.

    Args:
        log_p: as of `inception_score`.
        draws: [num_replicates, n] drawn rows.
        num_splits: as of `inception_score`.
    """
    _check(log_p, num_splits)
    return _split_scores(log_p, draws, num_splits).mean(dim=1)


def _split_scores(log_p: Tensor, rows: Tensor, num_splits: int) -> Tensor:
    """Scores [R, num_splits] of R sequences of rows [R, n].

    The mean of KL(p_i || q) is that of sum_k p_ik log p_ik, less sum_k q_k log q_k, since q is the mean of p.
    """
    log_p = log_p.double()
    p = log_p.exp()
    negative_entropy = torch.xlogy(p, p).sum(dim=1)
    edges = [split * rows.shape[1] // num_splits for split in range(num_splits + 1)]
    scores = []
    for start, end in pairwise(edges):
        drawn = rows[:, start:end]
        counts = torch.zeros(len(rows), len(p), dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
        marginal = counts @ p / (end - start)
        divergence = counts @ negative_entropy / (end - start) - torch.xlogy(marginal, marginal).sum(dim=1)
        scores.append(divergence.exp())
    return torch.stack(scores, dim=1)


def _check(log_p: Tensor, num_splits: int) -> None:
    if log_p.ndim != 2:
        raise ValueError(f"log-probabilities must be [n, K], got {list(log_p.shape)}")
    if not 1 <= num_splits <= len(log_p):
        raise ValueError(f"num_splits must lie between 1 and the {len(log_p)} rows, got {num_splits}")
    if not (log_p < torch.inf).all():
        raise ValueError("log-probabilities hold NaN or +inf: check the audio that they were computed from")

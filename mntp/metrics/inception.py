"""Inception score: confident predictions for each clip, varied predictions over the set."""

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
    p, negative_entropy = _predictions(log_p, num_splits)
    splits = torch.arange(len(p)).tensor_split(_edges(len(p), num_splits))
    return torch.stack([_score(p[rows].mean(0), negative_entropy[rows].mean()) for rows in splits])


def scores_without_each_clip(log_p: Tensor, num_splits: int = 1) -> Tensor:
    """`inception_score` without row i, for every i, the other rows staying in their splits: [n] float64.

    Raises:
        ValueError: as in `inception_score`, or a split has fewer than two rows.
    """
    p, negative_entropy = _predictions(log_p, num_splits)
    if len(p) < 2 * num_splits:
        raise ValueError(f"leaving rows out of {num_splits} splits needs {2 * num_splits} rows, got {len(p)}")
    scores = inception_scores(log_p, num_splits)
    left_out = []
    for split, rows in enumerate(torch.arange(len(p)).tensor_split(_edges(len(p), num_splits))):
        remaining = len(rows) - 1
        marginals = (p[rows].sum(0) - p[rows]) / remaining
        entropies = (negative_entropy[rows].sum() - negative_entropy[rows]) / remaining
        left_out.append((scores.sum() - scores[split] + _score(marginals, entropies)) / num_splits)
    return torch.cat(left_out)


def _score(marginal: Tensor, negative_entropy: Tensor) -> Tensor:
    """The score from the mean prediction [..., K] and the mean of sum_k p_ik log p_ik [...].

    The mean of KL(p_i || q) is the second, less sum_k q_k log q_k, since q is the mean of p.
    """
    return (negative_entropy - torch.xlogy(marginal, marginal).sum(-1)).exp()


def _predictions(log_p: Tensor, num_splits: int) -> tuple[Tensor, Tensor]:
    """Probabilities [n, K] and each row's sum_k p_k log p_k [n], in float64."""
    if log_p.ndim != 2:
        raise ValueError(f"log-probabilities must be [n, K], got {list(log_p.shape)}")
    if not 1 <= num_splits <= len(log_p):
        raise ValueError(f"num_splits must lie between 1 and the {len(log_p)} rows, got {num_splits}")
    if not (log_p < torch.inf).all():
        raise ValueError("log-probabilities hold NaN or +inf: check the audio that they were computed from")
    p = log_p.double().exp()
    return p, torch.xlogy(p, p).sum(dim=1)


def _edges(num_rows: int, num_splits: int) -> list[int]:
    """First rows of all splits but the first."""
    return [split * num_rows // num_splits for split in range(1, num_splits)]

"""Inception score: confident predictions for each clip, varied predictions over the set."""

import math
from itertools import pairwise

from torch import Tensor

from mntp.metrics.divergence import kl_divergence


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
    if log_p.ndim != 2:
        raise ValueError(f"log-probabilities must be [n, K], got {list(log_p.shape)}")
    if not 1 <= num_splits <= len(log_p):
        raise ValueError(f"num_splits must lie between 1 and the {len(log_p)} rows, got {num_splits}")
    edges = [split * len(log_p) // num_splits for split in range(num_splits + 1)]
    scores = [_score(log_p[start:end]) for start, end in pairwise(edges)]
    return sum(scores) / num_splits


def _score(log_p: Tensor) -> float:
    log_p = log_p.double()
    log_marginal = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return math.exp(kl_divergence(log_p, log_marginal.expand_as(log_p)))

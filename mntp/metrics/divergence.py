"""Kullback-Leibler divergence between paired class predictions."""

import torch
from torch import Tensor


def kl_divergence(log_p_ref: Tensor, log_p_gen: Tensor) -> float:
    """Mean over pairs of `kl_divergences`, which says the rest."""
    return kl_divergences(log_p_ref, log_p_gen).mean().item()


def kl_divergences(log_p_ref: Tensor, log_p_gen: Tensor) -> Tensor:
    """KL(ref || gen) = sum_k p_ref (log p_ref - log p_gen) of each pair, in nats: [n] float64.

    Identical rows give exactly 0. A class that the reference excludes (log-probability -inf) adds nothing;
    one that only the generated row excludes makes the result infinite. `log_p_gen` need not be normalised, so
    a definition that adds a constant inside its logarithm (`log(p + 1e-6)`) can be passed as it is.

    Args:
        log_p_ref: [n, K] log-probabilities of the reference clips.
        log_p_gen: [n, K] log-probabilities of the generated clips; row i is the partner of reference row i.

    Raises:
        ValueError: the shapes differ, there are no rows, or a value is NaN or +inf.
    """
    if log_p_ref.ndim != 2 or log_p_ref.shape != log_p_gen.shape or log_p_ref.numel() == 0:
        raise ValueError(
            "paired log-probabilities must both be [n, K] with n, K >= 1, "
            f"got {list(log_p_ref.shape)} and {list(log_p_gen.shape)}"
        )
    if not (log_p_ref < torch.inf).all() or not (log_p_gen < torch.inf).all():
        raise ValueError("log-probabilities hold NaN or +inf: check the audio that they were computed from")
    ref, gen = log_p_ref.double(), log_p_gen.double()
    p_ref = ref.exp()
    terms = torch.where(p_ref > 0, p_ref * (ref - gen), 0.0)
    return terms.sum(dim=1)

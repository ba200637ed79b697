"""Vendi score (arXiv 2210.02410): the effective number of different clips in a set, without a reference."""

import torch
from torch import Tensor


def vendi_score(features: Tensor) -> float:
    """exp of the entropy of the eigenvalues of K / n, with K the cosine similarities of the rows.

    Lies between 1 (all clips alike) and n (all orthogonal), and is at most F where F < n.

    Args:
        features: [n, F], no row zero.

    Raises:
        ValueError: `features` isn't [n, F] with n >= 1, a value isn't finite, or a row is zero.
    """
    if features.ndim != 2 or len(features) == 0 or not features.isfinite().all():
        raise ValueError(f"expected finite features [n, F], n >= 1, got {list(features.shape)}")
    lengths = features.double().norm(dim=1, keepdim=True)
    if (lengths == 0).any():
        raise ValueError("a clip's features are all zero, and have no direction: check its audio")
    rows = features.double() / lengths / len(features) ** 0.5
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows  # the same eigenvalues, but for zeros
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    return (-torch.xlogy(values, values).sum()).exp().item()

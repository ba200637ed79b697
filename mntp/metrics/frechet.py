"""Frechet distance between Gaussians fitted to two sets of features, without a matrix square root.

The usual form, |mx - my|^2 + tr(Sx + Sy - 2 (Sx Sy)^1/2), needs the root of a product that is singular as
soon as a set holds fewer clips than features; iterative roots then return imaginary parts or raise. With
centred rows Xc [n, F] and Yc [m, F] the trace of that root is a nuclear norm,

    tr (Sx Sy)^1/2 = || Xc Yc^T ||_* / sqrt((n - 1) (m - 1)),

which is exact for any rank. Replacing Xc and Yc by their QR factors R, at most [F, F], doesn't change it.
"""

import torch
from torch import Tensor


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance between Gaussians with the sample moments of `x` and `y`.

    Computed in float64 with unbiased covariances; symmetric. A result within the rounding error of its own
    terms is returned as 0, so identical sets give exactly 0. Biased upwards for small sets: compare only
    scores of equal n.

    Args:
        x: [n, F] one row of features per clip (or frame), any float dtype.
        y: [m, F]; n and m may differ.

    Returns:
        The distance, in the features' squared units, >= 0.

    Raises:
        ValueError: a set has fewer than two rows, the widths differ, or a value isn't finite.
    """
    _check(x, y)
    mean_x, spread_x, root_x = _moments(x)
    mean_y, spread_y, root_y = _moments(y)
    cross = torch.linalg.svdvals(root_x @ root_y.T).sum().item()
    distance = (mean_x - mean_y).square().sum().item() + spread_x + spread_y - 2 * cross
    rounding = torch.finfo(torch.float64).eps * max(len(x), len(y), x.shape[1]) * (spread_x + spread_y)
    return distance if distance > rounding else 0.0


def _moments(x: Tensor) -> tuple[Tensor, float, Tensor]:
    """Mean [F], trace of the covariance, and R [min(n, F), F] with R^T R = the covariance."""
    x = x.double()
    mean = x.mean(dim=0)
    scaled = (x - mean) / (len(x) - 1) ** 0.5
    return mean, scaled.square().sum().item(), torch.linalg.qr(scaled, mode="r").R


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features must be [n, F] and [m, F] with the same F, got {list(x.shape)} and {list(y.shape)}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a covariance needs at least 2 rows of features, got {len(x)} and {len(y)}: add clips")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("features hold NaN or infinite values: check the audio that they were computed from")

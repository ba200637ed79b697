"""Frechet distance between Gaussians fitted to two sets of features, without a matrix square root.

The usual form, |mx - my|^2 + tr(Sx + Sy - 2 (Sx Sy)^1/2), needs the root of a product that is singular as
soon as a set holds fewer clips than features; iterative roots then return imaginary parts or raise. With
centred rows Xc [n, F] and Yc [m, F] the trace of that root is a nuclear norm,

    tr (Sx Sy)^1/2 = || Xc Yc^T ||_* / sqrt((n - 1) (m - 1)),

which is exact for any rank. Replacing Xc and Yc by their QR factors R, at most [F, F], doesn't change it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mntp.metrics.bootstrap import count_draws

_NUM_WEIGHTED_VALUES = 1 << 22  # weighted rows held at once, 32 MB


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


def frechet_replicates(
    x: Tensor,
    y: Tensor,
    draws: Tensor,
    x_owner: Tensor | None = None,
    y_owner: Tensor | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Tensor:
    """The distance on resampled clips: clip i of `x` and clip i of `y` are drawn together.

    Args:
        x: [n, F] rows of features of the first set.
        y: [m, F] rows of the second.
        draws: [num_replicates, num_clips] drawn clips.
        x_owner: [n] clip of each row of `x`; row i is clip i if None.
        y_owner: the same for `y`.
        progress: called after each replicate.

    Returns:
        [num_replicates] float64; empty without draws.
    """
    _check(x, y)
    counts = count_draws(draws)
    weights_x = counts if x_owner is None else counts[:, x_owner]
    weights_y = counts if y_owner is None else counts[:, y_owner]
    wide = x.shape[1] > min(len(x), len(y))
    x, y = x.double(), y.double()
    return (_by_gram if wide else _by_covariance)(x, y, weights_x, weights_y, progress)


def _by_covariance(x: Tensor, y: Tensor, weights_x: Tensor, weights_y: Tensor, progress: Callable[[], None]) -> Tensor:
    """For more rows than features: each replicate costs two eigendecompositions [F, F], several replicates at once."""
    x, y = x - (centre := x.mean(0)), y - centre  # sums of squares keep their digits
    at_once = max(1, _NUM_WEIGHTED_VALUES // max(x.numel(), y.numel()))
    distances = []
    for weight_x, weight_y in zip(weights_x.split(at_once), weights_y.split(at_once), strict=True):
        mean_x, covariance_x = _weighted_moments(x, weight_x)
        mean_y, covariance_y = _weighted_moments(y, weight_y)
        values, vectors = torch.linalg.eigh(covariance_x)
        root = vectors * values.clamp(min=0).sqrt()[:, None]  # root root^T = covariance_x
        cross = torch.linalg.eigvalsh(root.mT @ covariance_y @ root).clamp(min=0).sqrt().sum(1)
        spread = (covariance_x + covariance_y).diagonal(dim1=1, dim2=2).sum(1)
        distances.append((mean_x - mean_y).square().sum(1) + spread - 2 * cross)
        for _ in weight_x:
            progress()
    return torch.cat(distances).clamp(min=0)


def _weighted_moments(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Means [R, F] and unbiased covariances [R, F, F] of rows [n, F] under R sets of counts [R, n]."""
    num_rows = weights.sum(1)[:, None]
    mean = weights @ x / num_rows
    covariance = (weights[:, :, None] * x).mT @ x - num_rows[:, :, None] * mean[:, :, None] * mean[:, None]
    return mean, covariance / (num_rows[:, :, None] - 1)


def _by_gram(x: Tensor, y: Tensor, weights_x: Tensor, weights_y: Tensor, progress: Callable[[], None]) -> Tensor:
    """For more features than rows: all products of rows once, then only [n, m] matrices."""
    x, y = x - (centre := x.mean(0)), y - centre
    gram_xx, gram_yy, gram_xy = x @ x.T, y @ y.T, x @ y.T
    distances = []
    for weight_x, weight_y in zip(weights_x, weights_y, strict=True):
        p, q = weight_x / weight_x.sum(), weight_y / weight_y.sum()
        between = p @ gram_xx @ p + q @ gram_yy @ q - 2 * (p @ gram_xy @ q)
        spread_x = (weight_x @ gram_xx.diagonal() - weight_x.sum() * (p @ gram_xx @ p)) / (weight_x.sum() - 1)
        spread_y = (weight_y @ gram_yy.diagonal() - weight_y.sum() * (q @ gram_yy @ q)) / (weight_y.sum() - 1)
        centred = gram_xy - (p @ gram_xy)[None] - (gram_xy @ q)[:, None] + p @ gram_xy @ q
        kept_x, kept_y = weight_x.nonzero().squeeze(1), weight_y.nonzero().squeeze(1)
        scale_x = (weight_x[kept_x] / (weight_x.sum() - 1)).sqrt()
        scale_y = (weight_y[kept_y] / (weight_y.sum() - 1)).sqrt()
        scaled = scale_x[:, None] * centred[kept_x][:, kept_y] * scale_y
        distances.append(between + spread_x + spread_y - 2 * _nuclear_norm(scaled))
        progress()
    return torch.tensor(distances, dtype=torch.float64).clamp(min=0)


def _nuclear_norm(matrix: Tensor) -> Tensor:
    """Sum of singular values to about 1e-6 of it, in half the time of an exact one: enough for a replicate."""
    return torch.linalg.eigvalsh(matrix @ matrix.T).clamp(min=0).sqrt().sum()


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

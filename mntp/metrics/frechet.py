"""Frechet distance between Gaussians fitted to two sets of features, without a matrix square root.

The usual form, |mx - my|^2 + tr(Sx + Sy - 2 (Sx Sy)^1/2), needs the root of a product that is singular as
soon as a set holds fewer clips than features; iterative roots then return imaginary parts or raise. With
centred rows Xc [n, F] and Yc [m, F] the trace of that root is a nuclear norm,

    tr (Sx Sy)^1/2 = || Xc Yc^T ||_* / sqrt((n - 1) (m - 1)),

which is exact for any rank. Replacing Xc and Yc by their QR factors R, at most [F, F], doesn't change it.
"""

import math

import torch
from torch import Tensor

_STEP = 0.35  # of the trapezoidal rule in log s: its error is exp(-pi^2 / _STEP), 6e-13
_NODES = (-26.0, 10.0)  # log s of the nodes, relative to the largest singular value; below lies exp(-26), 5e-12
_ZERO = 1e-10  # share of the traces below which a distance is rounding
_NUM_PRODUCTS = 1 << 22  # products of rows held at once, 32 MB


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance between Gaussians with the sample moments of `x` and `y`.

    Computed in float64 with unbiased covariances; symmetric. A result within the rounding error of its own
    terms is returned as 0, so identical sets give exactly 0. Biased upwards by an amount that falls with n and
    depends on the system: `distances_without_each_clip` removes it.

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


def distances_without_each_clip(
    x: Tensor, y: Tensor, x_owner: Tensor | None = None, y_owner: Tensor | None = None
) -> Tensor:
    """The distance without clip i of `x` and clip i of `y`, for every clip i, in closed form for any rank.

    Leaving out r rows takes a matrix U U^T of rank r from a covariance. Let sigma be the singular values of the cross
    product whose nuclear norm the distance holds, X and Y [rows, rank] the clip's rows in its singular vectors. Then

        tr ((S - U U^T) (T - W W^T))^1/2 - tr (S T)^1/2 = 1/pi int_0^inf log det D(s) ds,
        D(s) = [[1 - X P X^T, s X Q Y^T], [-s Y Q X^T, 1 - Y P Y^T]],
        P = sigma^2 / (sigma^2 + s^2), Q = sigma / (sigma^2 + s^2),

    from tr A^1/2 = 1/pi int log det(1 + A / s^2) ds and the matrix determinant lemma. The trapezoidal rule in log s
    integrates this to about 1e-11 of the norm, because the integrand is analytic there. One decomposition serves all
    clips; a loop over them would need one each.

    Args:
        x: [n, F] rows of features of the first set.
        y: [m, F] rows of the second.
        x_owner: [n] clip of each row of `x`; row i is clip i if None.
        y_owner: the same for `y`, of the same number of clips.

    Returns:
        [num_clips] float64, >= 0.

    Raises:
        ValueError: as in `frechet_distance`, or fewer than two rows are left without some clip.
    """
    _check(x, y)
    left_x, left_y = _LeftOut(x, x_owner), _LeftOut(y, y_owner)
    left, sigma, right = torch.linalg.svd(left_y.root @ left_x.root.T, full_matrices=False)
    blocks_x, blocks_y = left_x.blocks(left_x.basis @ right.T), left_y.blocks(left_y.basis @ left)
    scale = (left_x.scale * left_y.scale).sqrt()
    norm = scale * (sigma.sum() + _change_of_norm(blocks_x, blocks_y, sigma))
    spread = left_x.spread + left_y.spread
    distance = (left_x.mean - left_y.mean).square().sum(1) + spread - 2 * norm
    return torch.where(distance > _ZERO * spread, distance, 0.0)


class _LeftOut:
    """The moments of a set without each of its clips.

    Attributes:
        basis: [n, k] orthonormal columns and `root` [k, F], k = min(n, F), with basis @ root = the centred rows divided
            by (n - 1)^1/2.
        mean: [num_clips, F] without each clip.
        spread: [num_clips] traces of the covariances without each clip.
        scale: [num_clips] (n - 1) / (n - r - 1): what a covariance grows by before a clip's r rows are taken from it.
    """

    def __init__(self, rows: Tensor, owner: Tensor | None) -> None:
        num_rows = len(rows)
        owner = torch.arange(num_rows) if owner is None else owner
        self.counts = owner.bincount()
        if (num_rows - self.counts < 2).any():
            raise ValueError(f"a covariance needs at least 2 rows without any clip, got {num_rows} in all: add clips")
        mean = rows.double().mean(0)
        centred = rows.double() - mean
        self.basis, self.root = torch.linalg.qr(centred / (num_rows - 1) ** 0.5)
        # Clip i's rows are place[i, :counts[i]]; the rest of place[i] is masked.
        self.place = torch.nn.utils.rnn.pad_sequence(
            list(owner.argsort(stable=True).split(self.counts.tolist())), batch_first=True
        )
        self.mask = torch.arange(self.place.shape[1]) < self.counts[:, None]
        remaining = (num_rows - self.counts).double()
        totals = torch.zeros(len(self.counts), rows.shape[1], dtype=torch.float64).index_add_(0, owner, centred)
        squares = torch.zeros(len(self.counts), dtype=torch.float64).index_add_(0, owner, centred.square().sum(1))
        self.mean = mean - totals / remaining[:, None]
        self.spread = (centred.square().sum() - squares - totals.square().sum(1) / remaining) / (remaining - 1)
        self.scale = (num_rows - 1) / (remaining - 1)
        # (1 + ones / remaining)^1/2 = 1 + shift ones, on the clip's own rows
        self.shift = ((1 + self.counts / remaining).sqrt() - 1) / self.counts

    def blocks(self, rows: Tensor) -> Tensor:
        """Rows [n, k] -> [num_clips, most rows a clip, k], with what the clip's mean takes, filled up with zeros."""
        blocks = rows[self.place] * self.mask[:, :, None]
        return blocks + self.shift[:, None, None] * blocks.sum(1, keepdim=True) * self.mask[:, :, None]


def _change_of_norm(x: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    """The integral for clips with blocks x [n, r, k], y [n, q, k] and singular values [k]: [n]."""
    if sigma.max() == 0:
        return torch.zeros(len(x), dtype=torch.float64)
    nodes = torch.arange(*_NODES, _STEP, dtype=torch.float64).exp() * sigma.max()
    # Above the last node log det falls as 1 / s^2, and the rest of the sum is a geometric series. Nodes there would add
    # rounding errors that grow with s.
    weights = _STEP / math.pi * nodes
    weights[-1] /= 1 - math.exp(-_STEP)
    denominators = sigma.square()[:, None] + nodes.square()
    weight_p, weight_q = sigma.square()[:, None] / denominators, sigma[:, None] / denominators * nodes
    at_once = max(1, _NUM_PRODUCTS // ((x.shape[1] + y.shape[1]) ** 2 * max(len(sigma), len(nodes))))
    changes = []
    for part_x, part_y in zip(x.split(at_once), y.split(at_once), strict=True):
        p_x, p_y = (_products(part, part, weight_p) for part in (part_x, part_y))
        q = _products(part_x, part_y, weight_q)
        top = torch.cat([torch.eye(x.shape[1], dtype=torch.float64) - p_x, q], dim=-1)
        bottom = torch.cat([-q.mT, torch.eye(y.shape[1], dtype=torch.float64) - p_y], dim=-1)
        log_det = torch.linalg.slogdet(torch.cat([top, bottom], dim=-2)).logabsdet
        # A clip whose leaving lowers the rank has determinant 0 at s = 0, which rounding may reach near it.
        changes.append(log_det.clamp(min=-100.0) @ weights)
    return torch.cat(changes)


def _products(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """sum_k a_rk weight_ks b_qk of blocks a [n, r, k], b [n, q, k] and weight [k, S]: [n, S, r, q]."""
    pairs = a[:, :, None] * b[:, None]
    return (pairs @ weight).permute(0, 3, 1, 2)


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

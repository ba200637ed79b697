"""Kernel distances against sums written out, and their meaning: no bias, at any number of features."""

import math

import pytest
import torch
from torch import Tensor

from mntp.metrics.kernel import KAD_SCALE, cubic_kernel, kernel_audio_distance, paired_discrepancy


def rows(num_rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(num_rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_kad(x: Tensor, y: Tensor, own_reference: bool = False) -> float:
    """Sums of exponentials over pairs of clips, one by one."""
    n = len(x)
    distances = sorted(math.dist(y[i], y[j]) for i in range(n) for j in range(i))
    width = distances[(len(distances) - 1) // 2]

    def kernel(a: Tensor, b: Tensor) -> float:
        return math.exp(-(math.dist(a, b) ** 2) / (2 * width**2))

    within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    pairs = [(i, j) for i in range(n) for j in range(n) if own_reference or i != j]
    across = sum(kernel(x[i], y[j]) for i, j in pairs) / len(pairs)
    return 100 * (within - 2 * across)


def test_kad_is_the_sum_over_other_clips_at_the_references_median_distance() -> None:
    x, y = rows(9, 4, 0), 1.5 * rows(9, 4, 1) + 0.5
    value, _ = kernel_audio_distance(x, y)
    assert value == pytest.approx(plain_kad(x, y), rel=1e-12)
    assert value != pytest.approx(plain_kad(x, y, own_reference=True), rel=1e-3)
    assert value != pytest.approx(plain_kad(y, x), rel=1e-3)  # the width is the references' own


def test_leaving_pairs_out_is_as_computing_anew_at_the_same_width() -> None:
    x, y = rows(9, 4, 0), rows(9, 4, 1) + 0.5
    kernels = cubic_kernel(x, x), cubic_kernel(y, y), cubic_kernel(x, y)
    value, left_out = paired_discrepancy(*kernels)
    for row in range(9):
        kept = torch.arange(9) != row
        again, _ = paired_discrepancy(*(kernel[kept][:, kept] for kernel in kernels))
        assert left_out[row].item() == pytest.approx(again, rel=1e-10)
    assert (9 * value - 8 * left_out).mean().item() == pytest.approx(value, rel=1e-10)


def test_kad_has_no_bias_where_features_outnumber_clips() -> None:
    """Equal populations of 200 features: the mean over 60 draws of 20 clips lies within 3 standard errors of 0."""
    values = torch.tensor([kernel_audio_distance(rows(20, 200, 2 * i), rows(20, 200, 2 * i + 1))[0] for i in range(60)])
    assert values.mean().abs() < 3 * values.std() / math.sqrt(60)
    assert (values < 0).any() and (values > 0).any()
    far, _ = kernel_audio_distance(rows(20, 200, 0) + 0.5, rows(20, 200, 1))
    assert far > 10 * values.std() and far < 2 * KAD_SCALE


def test_clips_that_copy_their_references_are_at_no_distance() -> None:
    x = rows(9, 4, 0)
    assert kernel_audio_distance(x, x.clone())[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.ones(4, 2), torch.ones(5, 2), r"pairs of features, got \[4, 2\] and \[5, 2\]"),
        (torch.ones(4, 2), torch.ones(4, 2), "references that differ"),
        (torch.ones(4, 2), torch.ones(4, 3), r"\[4, 2\] and \[4, 3\]"),
        (torch.full((4, 2), math.nan), torch.ones(4, 2), "NaN"),
        (torch.eye(2), torch.eye(2), "at least 3 clips, got 2"),
    ],
)
def test_bad_input(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_audio_distance(x, y)

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from mntp.metrics.frechet import frechet_distance


def features(num_rows: int, width: int, seed: int) -> Tensor:
    """Correlated features with a mean, [num_rows, width] float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_rows, width, generator=generator, dtype=torch.float64)
    return noise @ mixing + torch.randn(width, generator=generator, dtype=torch.float64)


def with_moments(mean: Tensor, covariance: Tensor) -> Tensor:
    """Rows whose sample mean and unbiased sample covariance are exactly the given ones."""
    x = features(50, len(mean), seed=3)
    x = x - x.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ whitened).T + mean


def test_one_dimension_matches_the_closed_form():
    x, y = features(40, 1, seed=0), features(70, 1, seed=1)
    expected = (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-12)


def test_commuting_covariances_match_the_closed_form():
    """Covariances with common axes: the distance is that of the standard deviations."""
    axes = torch.linalg.qr(features(4, 4, seed=5)).Q
    std_x, std_y = torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.tensor([2.0, 2.0, 1.0, 0.5]).double()
    mean_x, mean_y = torch.zeros(4).double(), torch.tensor([1.0, -1.0, 0.0, 2.0]).double()
    x = with_moments(mean_x, axes @ std_x.square().diag() @ axes.T)
    y = with_moments(mean_y, axes @ std_y.square().diag() @ axes.T)
    expected = (mean_x - mean_y).square().sum() + (std_x - std_y).square().sum()
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-10)


def test_full_rank_matches_the_matrix_square_root():
    x, y = features(60, 8, seed=0), features(45, 8, seed=1)
    cov_x, cov_y = torch.cov(x.T), torch.cov(y.T)
    root = scipy.linalg.sqrtm((cov_x @ cov_y).numpy())
    expected = (x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * root.trace().real
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-9)


def test_fewer_rows_than_features_is_exact():
    """Sets that live in one plane of a wide space: as far apart as the same points in two dimensions."""
    plane = torch.linalg.qr(features(32, 2, seed=9)).Q.T
    x, y = features(12, 2, seed=0), features(9, 2, seed=1)
    assert frechet_distance(x @ plane, y @ plane) == pytest.approx(frechet_distance(x, y), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(100, 70), (6, 9), (2, 50)])
def test_symmetric_and_blind_to_row_order(n, m):
    x, y = features(n, 12, seed=0), features(m, 12, seed=1)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)
    assert frechet_distance(x.flip(0), y) == pytest.approx(frechet_distance(x, y), rel=1e-12)


@pytest.mark.parametrize("num_rows", [2, 10, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_sets_give_exactly_zero(num_rows, dtype):
    x = features(num_rows, 24, seed=2).to(dtype)
    assert frechet_distance(x, x.clone()) == 0.0
    assert frechet_distance(x, x.flip(0)) == 0.0
    assert frechet_distance(x + 1e3, x.flip(0) + 1e3) == 0.0


def test_a_small_shift_is_not_rounded_away():
    x = features(100, 24, seed=2)
    assert frechet_distance(x, x + 1e-5) == pytest.approx(24e-10, rel=1e-3)


def test_unbiased_covariance():
    """Two points 2 apart have variance 2, not 1: the divisor is n - 1."""
    x, y = torch.tensor([[-1.0], [1.0]]), torch.zeros(5, 1)
    assert frechet_distance(x, y) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.ones(1, 3), torch.ones(5, 3), "at least 2 rows"),
        (torch.ones(5, 3), torch.ones(5, 4), "same F"),
        (torch.ones(5), torch.ones(5), "same F"),
        (torch.full((5, 3), math.nan), torch.ones(5, 3), "NaN"),
    ],
)
def test_bad_input(x, y, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)

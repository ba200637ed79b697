import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from mntp.metrics.frechet import distances_without_each_clip, frechet_distance


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


def test_the_biased_covariance_would_be_seen():
    """With divisor n, as a wrong variant would have it, 60 and 45 rows give another distance."""
    x, y = features(60, 8, seed=0), features(45, 8, seed=1)
    cov_x, cov_y = torch.cov(x.T, correction=0), torch.cov(y.T, correction=0)
    root = scipy.linalg.sqrtm((cov_x @ cov_y).numpy())
    wrong = (x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * root.trace().real
    assert frechet_distance(x, y) != pytest.approx(float(wrong), rel=1e-3)


def test_singular_covariances_with_known_angles():
    """Planes of 4 dimensions in a space of 64, 50 rows each: tr (Sx Sy)^1/2 = sum sqrt(a_i b_i) cos(angle_i)."""
    basis = torch.linalg.qr(features(64, 8, seed=4)).Q.T
    angles = torch.tensor([0.0, 0.3, 1.0, math.pi / 2], dtype=torch.float64)[:, None]
    plane_x, plane_y = basis[:4], angles.cos() * basis[:4] + angles.sin() * basis[4:]
    a, b = torch.tensor([4.0, 1.0, 9.0, 2.0]).double(), torch.tensor([1.0, 16.0, 2.0, 3.0]).double()
    mean = torch.zeros(4).double()
    x, y = with_moments(mean, a.diag()) @ plane_x, with_moments(mean, b.diag()) @ plane_y + 0.5 * basis[7]
    expected = 0.25 + (a + b).sum() - 2 * ((a * b).sqrt() * angles[:, 0].cos()).sum()
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-10)


def test_fewer_rows_than_features_agrees_with_the_root_of_one_covariance():
    x, y = features(20, 48, seed=0), features(31, 48, seed=1)
    cov_x, cov_y = torch.cov(x.T), torch.cov(y.T)
    values, vectors = torch.linalg.eigh(cov_x)
    root_x = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root_x @ cov_y @ root_x).clamp(min=0).sqrt().sum()
    expected = (x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * cross
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.slow
def test_the_size_of_the_published_test_set():
    """964 clips of 2048 features against the same ones, scaled and shifted: |mx - my|^2 + (1 - 1.1)^2 tr Sx."""
    x = torch.randn(964, 2048, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.linspace(0, 0.1, 2048, dtype=torch.float64)
    expected = (0.1 * x.mean(0) + shift).square().sum() + 0.01 * x.var(0).sum()
    assert frechet_distance(x, 1.1 * x + shift) == pytest.approx(expected.item(), rel=1e-9)


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


def without_each(x: Tensor, y: Tensor, x_owner: Tensor, y_owner: Tensor) -> Tensor:
    """The distance computed anew without each clip's rows."""
    clips = range(int(x_owner.max()) + 1)
    return torch.tensor(
        [frechet_distance(x[x_owner != clip], y[y_owner != clip]) for clip in clips], dtype=torch.float64
    )


def owners_of(rows_a_clip: tuple[int, ...], num_clips: int) -> Tensor:
    return torch.arange(num_clips).repeat_interleave(torch.tensor((rows_a_clip * num_clips)[:num_clips]))


@pytest.mark.parametrize(("width", "tolerance"), [(3, 1e-9), (12, 1e-9), (13, 1e-8), (40, 3e-8)])
@pytest.mark.parametrize("rows_a_clip", [((1,), (1,)), ((1, 2, 3), (2,)), ((3,), (1, 2))])
def test_leaving_clips_out_is_as_computing_the_distance_anew(width, tolerance, rows_a_clip):
    """Also where clips have several rows, unequally many, the sets differ in size, and covariances are singular."""
    x_owner, y_owner = (owners_of(counts, 14) for counts in rows_a_clip)
    x, y = (features(len(owner), width, seed) for seed, owner in enumerate((x_owner, y_owner)))
    found = distances_without_each_clip(x, y, x_owner, y_owner)
    torch.testing.assert_close(found, without_each(x, y, x_owner, y_owner), rtol=tolerance, atol=0)
    if len(x) == len(y) == 14:
        assert torch.equal(distances_without_each_clip(x, y), found)
        assert (found - distances_without_each_clip(x, y.flip(0))).abs().max() > 0.01  # partners leave together


def test_leaving_clips_out_at_the_size_of_an_ablation():
    x = features(128, 64, seed=0)
    y = 0.8 * x + features(128, 64, seed=1)
    every = torch.arange(128)
    found = distances_without_each_clip(x, y)
    torch.testing.assert_close(found, without_each(x, y, every, every), rtol=1e-9, atol=0)
    torch.testing.assert_close(distances_without_each_clip(x + 1e4, y + 1e4), found, rtol=1e-7, atol=0)


@pytest.mark.parametrize("width", [3, 12, 48])
def test_nothing_is_lost_from_identical_sets(width):
    x = features(20, width, seed=0).float()
    assert (distances_without_each_clip(x, x.clone()) == 0).all()


def test_leaving_clips_out_without_any_overlap_of_the_spreads():
    """Sets that vary in other directions, and one that doesn't vary at all."""
    x, y = torch.zeros(9, 4), torch.zeros(9, 4)
    x[:, 0], y[:, 1] = torch.arange(9.0), torch.arange(9.0).square()
    every = torch.arange(9)
    for other in (y, torch.ones(9, 4)):
        found = distances_without_each_clip(x, other)
        torch.testing.assert_close(found, without_each(x, other, every, every), rtol=1e-9, atol=0)


def test_too_few_clips_to_leave_one_out():
    with pytest.raises(ValueError, match="at least 2 rows without any clip, got 2 in all"):
        distances_without_each_clip(torch.ones(2, 3), torch.ones(2, 3))

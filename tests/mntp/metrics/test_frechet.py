import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from mntp.metrics.bootstrap import draw_clips
from mntp.metrics.frechet import frechet_distance, frechet_replicates


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


def rows_of(drawn: Tensor, owner: Tensor) -> Tensor:
    """Rows of the drawn clips, as often as each was drawn."""
    return torch.cat([(owner == clip).nonzero()[:, 0] for clip in drawn.tolist()])


@pytest.mark.parametrize("width", [3, 40], ids=["tall", "wide"])
@pytest.mark.parametrize("rows_a_clip", [((1,), (1,)), ((1, 2, 3), (2,)), ((3,), (1, 2))])
def test_replicates_are_the_distances_of_the_resampled_rows(width, rows_a_clip):
    """Also where clips have several rows, unequally many, and the sets differ in size."""
    num_clips = 14
    owners = [
        torch.arange(num_clips).repeat_interleave(torch.tensor(counts * num_clips)[:num_clips])
        for counts in rows_a_clip
    ]
    x, y = (features(len(owner), width, seed).float() for seed, owner in enumerate(owners))
    x_owner, y_owner = owners
    draws = draw_clips(num_clips, 25)
    ticks = []
    found = frechet_replicates(x, y, draws, x_owner, y_owner, lambda: ticks.append(1))
    expected = [frechet_distance(x[rows_of(drawn, x_owner)], y[rows_of(drawn, y_owner)]) for drawn in draws]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=1e-9)
    assert len(ticks) == 25 and found.std() > 0
    if len(x) == len(y) == num_clips:
        assert torch.equal(frechet_replicates(x, y, draws), found)
    unpartnered = frechet_replicates(x, y.flip(0), draws, x_owner, y_owner.max() - y_owner.flip(0))
    assert (found - unpartnered).abs().max() > 0.01  # other clips than their partners are drawn with them


@pytest.mark.parametrize("width", [4, 60])
def test_replicates_far_from_the_origin_keep_their_digits(width):
    x, y = features(30, width, seed=0), features(30, width, seed=1)
    draws = draw_clips(30, 20)
    near, far = frechet_replicates(x, y, draws), frechet_replicates(x + 1e4, y + 1e4, draws)
    torch.testing.assert_close(far, near, rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", [4, 60])
def test_replicates_of_identical_sets_are_close_to_zero_and_never_below(width):
    x = features(30, width, seed=0)
    found = frechet_replicates(x, x.clone(), draw_clips(30, 20))
    assert (found >= 0).all() and (found < 1e-5 * x.var(0).sum()).all()


def test_a_replicate_of_one_clip_drawn_twice_has_no_spread():
    x, y = features(2, 3, seed=0), features(2, 3, seed=1)
    draws = torch.tensor([[0, 0], [0, 1], [1, 1]])
    expected = [frechet_distance(x[drawn], y[drawn]) for drawn in draws]
    torch.testing.assert_close(frechet_replicates(x, y, draws), torch.tensor(expected).double())

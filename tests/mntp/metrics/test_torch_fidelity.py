"""torch-fidelity as a second opinion on the scores that it defines alike, from the same features."""

import pytest
import torch
from torch import Tensor

from mntp.metrics.frechet import frechet_distance
from mntp.metrics.inception import inception_score
from mntp.metrics.kernel import cubic_kernel, gaussian_kernel, kernel_distance, paired_discrepancy
from mntp.metrics.neighbours import neighbourhoods

pytest.importorskip("torch_fidelity")  # the extra `crosscheck`; it brings torchvision along
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc


def features(num_rows: int, seed: int, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(num_rows, width, generator=generator, dtype=torch.float64) @ mixing + 0.3 * seed


def test_frechet_distance() -> None:
    x, y = features(80, 0), features(70, 1)
    statistics = (metric_fid.fid_features_to_statistics(rows) for rows in (x, y))
    expected = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_splits", [1, 10])
def test_inception_score(num_splits: int) -> None:
    logits = 2 * features(75, 0)
    found = metric_isc.isc_features_to_metric(logits, splits=num_splits, shuffle=False)
    assert inception_score(logits.log_softmax(-1), num_splits) == pytest.approx(found["inception_score_mean"], rel=1e-9)


def test_kernel_inception_distance() -> None:
    """The same subsets too, by the same seed: fewer than both sets hold, and of unequal sets."""
    generated, reference = features(60, 0), features(50, 1)
    options = {"kid_subsets": 20, "kid_subset_size": 40, "rng_seed": 2020, "verbose": False}
    expected = metric_kid.kid_features_to_metric(generated, reference, **options)
    mean, spread = kernel_distance(generated, reference, num_subsets=20, subset_size=40)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert spread == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)


@pytest.mark.parametrize("kernel", ["cubic", "gaussian"])
def test_paired_kernel_distance(kernel: str) -> None:
    x, y = features(40, 0), features(40, 1)
    width = torch.pdist(y).median()
    pairs = ((x, x), (x, y), (y, y))
    k_xx, k_xy, k_yy = (cubic_kernel(*p) if kernel == "cubic" else gaussian_kernel(*p, width) for p in pairs)
    expected = metric_kid.mmd2(k_xx.numpy(), k_xy.numpy(), k_yy.numpy(), mmd_est="u-statistic")
    assert paired_discrepancy(k_xx, k_yy, k_xy)[0] == pytest.approx(expected, rel=1e-9)


def test_precision_and_recall() -> None:
    generated, reference = 0.6 * features(60, 0) + 2, features(50, 0)
    precision, recall = metric_prc.calculate_precision_recall_full(generated, reference, neighborhood=3)
    found = neighbourhoods(generated, reference, num_neighbours=3)
    assert (found.precision, found.recall) == (pytest.approx(precision), pytest.approx(recall))
    assert 0.1 < found.recall < 0.95 and 0.1 < found.precision < 1

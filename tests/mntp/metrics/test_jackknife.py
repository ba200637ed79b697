"""Pseudo-values against estimators whose jackknife is known in closed form."""

import math

import pytest
import torch

from mntp.metrics.jackknife import as_defined, corrected, mean_score, ratio_pseudo_values

VALUES = torch.tensor([3.0, -1.0, 4.0, 1.5, 9.0], dtype=torch.float64)


def without_each(values: torch.Tensor, statistic) -> torch.Tensor:
    rows = torch.arange(len(values))
    return torch.stack([statistic(values[rows != row]) for row in rows])


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    left_out = without_each(VALUES, torch.mean)
    for score in (corrected(3.3, left_out), as_defined(3.3, left_out)):
        torch.testing.assert_close(score.clips, VALUES)
    assert mean_score(VALUES.float()).clips.dtype == torch.float64
    assert mean_score(VALUES).value == pytest.approx(3.3)


def test_the_variance_with_divisor_n_loses_its_bias() -> None:
    """Its bias is exactly of order 1 / n, so the correction gives the unbiased variance exactly."""

    def biased(values: torch.Tensor) -> torch.Tensor:
        return values.var(correction=0)

    whole, left_out = biased(VALUES).item(), without_each(VALUES, biased)
    score = corrected(whole, left_out, floor=0.0)
    assert score.value == pytest.approx(VALUES.var().item())
    assert score.floor == 0 and score.comparable
    raw = as_defined(whole, left_out, comparable=False)
    assert raw.value == whole and raw.clips.mean().item() == pytest.approx(whole) and not raw.comparable
    torch.testing.assert_close(raw.clips - raw.clips.mean(), score.clips - score.clips.mean())


def test_a_ratio_of_sums_leaves_out_a_clips_values_together() -> None:
    totals, counts = torch.tensor([2.0, 6.0, 1.0, 5.0]), torch.tensor([1, 3, 2, 1])
    whole = 14 / 7
    left_out = [12 / 6, 8 / 4, 13 / 5, 9 / 6]
    plain = [4 * whole - 3 * other for other in left_out]
    found = ratio_pseudo_values(totals, counts).tolist()
    assert found == pytest.approx([value + whole - sum(plain) / 4 for value in plain])
    assert ratio_pseudo_values(totals, torch.ones(4)).tolist() == pytest.approx(totals.tolist())


def test_the_standard_error_is_that_of_the_delta_method() -> None:
    """Of exp(mean) at 2,000 values: exp(mean) sd / n^1/2."""
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left_out = without_each(values, lambda part: part.mean().exp())
    score = corrected(values.mean().exp().item(), left_out)
    assert (score.clips.std() / math.sqrt(2000)).item() == pytest.approx(
        (values.mean().exp() * values.std()).item() / math.sqrt(2000), rel=1e-3
    )


def test_two_clips_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 3 clips, got 2: add clips"):
        corrected(1.0, torch.ones(2))
    assert len(ratio_pseudo_values(torch.ones(2), torch.ones(2))) == 0

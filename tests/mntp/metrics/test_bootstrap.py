"""Draws that every system shares, and means over them."""

import math

import pytest
import torch

from mntp.metrics.bootstrap import NUM_REPLICATES, count_draws, draw_clips, mean_replicates
from mntp.metrics.inception import inception_replicates, inception_score


def test_draws_are_a_function_of_the_number_of_clips_alone() -> None:
    first = draw_clips(37)
    torch.manual_seed(5)
    torch.rand(3)
    assert torch.equal(draw_clips(37), first) and first.shape == (NUM_REPLICATES, 37)
    assert torch.equal(draw_clips(37, 10), first[:10])
    assert not torch.equal(draw_clips(38)[:, :37], first)


def test_draws_are_with_replacement_and_even() -> None:
    draws = draw_clips(20)
    assert draws.min() == 0 and draws.max() == 19
    expected, spread = NUM_REPLICATES, math.sqrt(NUM_REPLICATES * 19 / 20 * 20 / 20)
    assert (draws.flatten().bincount() - expected).abs().max() < 5 * spread
    distinct = torch.tensor([len(row.unique()) for row in draws]).double().mean()
    assert distinct / 20 == pytest.approx(1 - (1 - 1 / 20) ** 20, rel=0.02)


def test_counts_are_those_of_the_draws() -> None:
    draws = draw_clips(9, 40)
    counts = count_draws(draws)
    assert counts.dtype == torch.float64
    assert (counts.sum(1) == 9).all()
    assert counts.tolist() == [[row.count(clip) for clip in range(9)] for row in draws.tolist()]


def test_a_weighted_mean_is_over_the_values_of_the_drawn_clips() -> None:
    """Clips of one to three values: the mean over all values, not that of the clips' means."""
    values = [[1.0, 2.0, 6.0], [10.0], [-3.0, 5.0], [0.5]]
    total, weight = (torch.tensor([f(v) for v in values], dtype=torch.float64) for f in (sum, len))
    draws = draw_clips(4, 30)
    drawn = [[value for clip in row for value in values[clip]] for row in draws.tolist()]
    expected = torch.tensor([sum(row) / len(row) for row in drawn], dtype=torch.float64)
    torch.testing.assert_close(mean_replicates(total, draws, weight), expected)
    assert (mean_replicates(total / weight, draws) - expected).abs().max() > 0.1
    plain = torch.tensor([sum(total[row].tolist()) / 4 for row in draws], dtype=torch.float64)
    torch.testing.assert_close(mean_replicates(total.float(), draws), plain)


def test_a_replicate_without_any_value_is_not_a_number() -> None:
    found = mean_replicates(torch.tensor([0.0, 4.0]), torch.tensor([[0, 0], [0, 1]]), torch.tensor([0.0, 2.0]))
    assert found[0].isnan() and found[1] == 2


@pytest.mark.parametrize("num_splits", [1, 3])
def test_inception_replicates_are_the_scores_of_the_drawn_rows(num_splits: int) -> None:
    log_p = (2 * torch.randn(17, 6, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    draws = draw_clips(17, 12)
    expected = [inception_score(log_p[row], num_splits) for row in draws]
    found = inception_replicates(log_p, draws, num_splits)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)

"""Intervals: centred on the score, of the stated coverage, narrower for differences of systems that move together."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.scoring.intervals import interval, paired_difference, read_replicates, write_replicates
from mntp.metrics.bootstrap import draw_clips, mean_replicates
from mntp.metrics.frechet import frechet_distance, frechet_replicates


def test_the_interval_is_moved_to_where_the_score_is() -> None:
    """Replicates far above the score, as those of a Frechet distance are: their spread counts, not their place."""
    replicates = np.linspace(9.0, 11.0, 2001)
    assert interval(3.0, replicates) == pytest.approx((2.05, 3.95))
    low, high = interval(3.0, np.append(np.zeros(900), np.ones(100))) or (0, 0)
    assert (low, high) == pytest.approx((2.9, 3.9))  # a skew stays


@pytest.mark.parametrize("replicates", [[], [1.0, math.nan, 2.0], [1.0, math.inf, 2.0]])
def test_no_interval_where_a_replicate_is_missing_or_not_finite(replicates: list[float]) -> None:
    found = np.array(replicates)
    assert interval(1.0, found) is None
    assert paired_difference(1.0, found, 1.0, np.ones(len(found))) is None


def test_no_difference_of_other_numbers_of_replicates() -> None:
    assert paired_difference(1.0, np.ones(5), 1.0, np.ones(6)) is None


def test_the_interval_of_a_mean_covers_the_truth_in_95_of_100_cases() -> None:
    """400 sets of 60 clips: 380 covered if exact, standard error 4.4; a bootstrap of 60 loses one in a hundred."""
    draws = draw_clips(60, 400)
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        values = 1.5 + torch.randn(60, generator=generator, dtype=torch.float64)
        low, high = interval(values.mean().item(), mean_replicates(values, draws).numpy()) or (0, 0)
        covered += low <= 1.5 <= high
    assert 360 <= covered <= 393


def test_the_interval_of_a_frechet_distance_covers_its_expectation_at_this_size() -> None:
    """It promises the score's spread at this number of clips, bias included: 60 pairs of sets in 3 dimensions."""
    generator = torch.Generator().manual_seed(1)
    draws = draw_clips(80, 100)

    def pair() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(80, 3, generator=generator, dtype=torch.float64)
        return x, 1.4 * torch.randn(80, 3, generator=generator, dtype=torch.float64) + 0.5

    expectation = np.mean([frechet_distance(*pair()) for _ in range(400)])
    covered = 0
    for _ in range(60):
        x, y = pair()
        low, high = interval(frechet_distance(x, y), frechet_replicates(x, y, draws).numpy()) or (0, 0)
        covered += low <= expectation <= high
    assert covered >= 49  # 57 expected; fewer than 49 once in 400 if the coverage is only 92 %


def test_the_difference_of_systems_that_move_together_is_known_better() -> None:
    """Hard clips are hard for both: 0.1 apart with a spread of 1 over clips shows only pair by pair."""
    generator = torch.Generator().manual_seed(2)
    hard = torch.randn(100, generator=generator, dtype=torch.float64)
    one, two = (hard + 0.05 * torch.randn(100, generator=generator, dtype=torch.float64) + d for d in (0.1, 0.0))
    draws = draw_clips(100)
    first, second = (mean_replicates(values, draws).numpy() for values in (one, two))
    values = one.mean().item(), two.mean().item()
    paired = paired_difference(values[0], first, values[1], second)
    apart = paired_difference(values[0], first, values[1], np.random.default_rng(0).permutation(second))
    assert paired is not None and apart is not None
    assert paired.high - paired.low < 0.1 * (apart.high - apart.low)
    assert paired.separable and not apart.separable
    assert paired.value == apart.value == pytest.approx(0.1, abs=0.02)
    other = paired_difference(values[1], second, values[0], first)
    assert other is not None and (other.low, other.high) == pytest.approx((-paired.high, -paired.low))


def test_replicates_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "replicates.safetensors"
    assert read_replicates(path) == {}
    values = np.random.default_rng(0).standard_normal((50, 2))
    write_replicates(path, {"fd": values[:, 0], "kl": values[:, 1]})
    found = read_replicates(path)
    assert {name: column.tobytes() for name, column in found.items()} == {
        "fd": values[:, 0].tobytes(),
        "kl": values[:, 1].tobytes(),
    }
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"replicates\.safetensors: not readable .*score again"):
        read_replicates(path)

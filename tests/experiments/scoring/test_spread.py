"""Spreads that were put in are found, and what is said of power is what happens."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.scoring.intervals import permutation_p_value
from experiments.scoring.spread import Need, Spread, measure_spread, needs


def draw(generator: np.random.Generator, num_seeds: int, num_clips: int, spread: Spread) -> list[NDArray[np.float64]]:
    clips = spread.clips * generator.standard_normal(num_clips)
    shifts = (spread.training or 0.0) * generator.standard_normal(num_seeds)
    return [shift + clips + spread.rest * generator.standard_normal(num_clips) for shift in shifts]


def test_the_three_spreads_are_found_again() -> None:
    generator, truth = np.random.default_rng(0), Spread(0.5, 2.0, 1.0)
    found = [measure_spread(draw(generator, 5, 200, truth)) for _ in range(200)]
    for name in ("training", "clips", "rest"):
        mean_square = np.mean([getattr(item, name) ** 2 for item in found])
        assert math.sqrt(mean_square) == pytest.approx(getattr(truth, name), rel=0.08), name


def test_by_hand() -> None:
    """Two seeds 2 apart on every clip, clips 4 apart for every seed, and no rest."""
    found = measure_spread([np.array([0.0, 4.0]), np.array([2.0, 6.0])])
    assert (found.training, found.clips, found.rest) == (pytest.approx(math.sqrt(2)), pytest.approx(math.sqrt(8)), 0.0)
    assert found.over_clips(2) == pytest.approx(2.0)
    assert found.standard_error(num_clips=8, num_seeds=4) == pytest.approx(math.sqrt(2 / 4 + 8 / 8))


def test_one_seed_says_nothing_of_training() -> None:
    values = np.array([1.0, 2.0, 4.0])
    found = measure_spread([values])
    assert found == Spread(None, pytest.approx(values.std(ddof=1)), 0.0)
    assert found.standard_error(12, 3) == pytest.approx(values.std(ddof=1) / math.sqrt(12))


def test_seeds_that_differ_less_than_their_clips_allow_have_no_spread_of_their_own() -> None:
    generator = np.random.default_rng(1)
    found = [measure_spread(draw(generator, 3, 50, Spread(0.0, 0.0, 3.0))) for _ in range(50)]
    assert sum(item.training == 0.0 for item in found) > 15  # about half
    assert max(item.training or 0.0 for item in found) < 1.5


def test_the_number_of_clips_that_is_asked_for_gives_the_power() -> None:
    spread = Spread(0.1, 1.0, 0.5)
    for number in (1, 3, 10):
        clips = spread.num_clips_needed(0.5, number, 0.8)
        assert clips is not None
        assert spread.power(0.5, clips, number) >= 0.8 - 1e-9 > spread.power(0.5, clips - 1, number)
    assert spread.power(0.0, 100, 3) == pytest.approx(0.05)
    assert Spread(0.1, 0.0, 0.0).num_clips_needed(0.5, 3) == 1


def test_the_spread_of_training_sets_a_limit_that_no_number_of_clips_passes() -> None:
    found = needs(Spread(0.4, 2.0, 1.0), 0.5, seeds=(1, 3, 5, 10, 30))
    assert [need.num_clips for need in found[:3]] == [None, None, None]
    assert found[3] == Need(10, 259)  # (4 + 1 / 10) / ((0.5 / 2.8016)^2 - 0.16 / 10) = 258.7
    assert found[4].num_clips is not None and found[4].num_clips < 259


def test_the_stated_power_is_that_of_the_test() -> None:
    """One seed, 40 clips, a difference that 80 % should find: 400 trials, standard error 2 %."""
    spread, generator = Spread(None, 1.0, 0.0), np.random.default_rng(2)
    difference = 2.8016 / math.sqrt(40)
    assert spread.power(difference, 40, 1) == pytest.approx(0.8, abs=1e-3)
    found = sum(permutation_p_value(difference + generator.standard_normal(40)) <= 0.05 for _ in range(400))
    assert found / 400 == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(
    "values",
    [[], [np.ones(3), np.ones(4)], [np.ones(1), np.ones(1)]],
)
def test_what_cannot_be_measured(values: list[NDArray[np.float64]]) -> None:
    with pytest.raises(ValueError, match="pseudo-values of the same clips"):
        measure_spread(values)


def test_questions_without_an_answer() -> None:
    for difference, power in ((0.0, 0.8), (1.0, 1.0), (1.0, 0.01)):
        with pytest.raises(ValueError, match="a difference other than 0 and a power"):
            Spread(None, 1.0, 0.0).num_clips_needed(difference, 1, power)

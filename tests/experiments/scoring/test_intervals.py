"""Intervals and tests from pseudo-values: their coverage, their level, and how they are kept."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from experiments.scoring.intervals import (
    NUM_PERMUTATIONS,
    interval,
    paired_difference,
    permutation_p_value,
    read_replicates,
    student_t,
    write_replicates,
)


@pytest.mark.parametrize(
    ("degrees", "tolerance"), [(1, 1e-9), (2, 1e-9), (3, 0.01), (8, 1e-3), (20, 1e-4), (127, 1e-6)]
)
def test_students_t(degrees: int, tolerance: float) -> None:
    assert student_t(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), rel=tolerance)


def test_the_interval_is_students_around_the_score() -> None:
    values = np.array([1.0, 4.0, 2.0, 7.0, 3.5, 2.5, 6.0, 0.5, 2.0, 1.5])
    expected = scipy.stats.t.interval(0.95, 9, loc=5.0, scale=scipy.stats.sem(values))
    assert interval(5.0, values) == pytest.approx(expected, rel=1e-3)


def test_the_interval_of_a_distance_ends_at_zero_unless_the_score_lies_below() -> None:
    values = np.array([-1.0, 1.0, 3.0])
    low, high = interval(1.0, values, floor=0.0) or (1, 0)
    assert low == 0.0 and high > 5
    assert (interval(-0.5, values, floor=0.0) or (0, 0))[0] == -0.5
    assert (interval(1.0, values) or (0, 0))[0] < -3


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan, 2.0], [1.0, math.inf, 2.0]])
def test_no_interval_where_a_clip_is_missing_or_not_finite(values: list[float]) -> None:
    found = np.array(values)
    assert interval(1.0, found) is None
    assert paired_difference(1.0, found, 1.0, np.ones(len(found))) is None


def test_no_difference_of_other_numbers_of_clips() -> None:
    assert paired_difference(1.0, np.ones(5), 1.0, np.ones(6)) is None


def test_the_interval_covers_the_truth_in_95_of_100_cases() -> None:
    """2,000 sets of 20 clips: 1,900 if exact, standard error 9.7."""
    values = 1.5 + np.random.default_rng(0).standard_normal((2000, 20))
    ends = [interval(float(row.mean()), row) or (0, 0) for row in values]
    assert 1870 <= sum(low <= 1.5 <= high for low, high in ends) <= 1930


@pytest.mark.parametrize("skewed", [False, True])
def test_the_permutation_test_keeps_its_level(skewed: bool) -> None:
    """1,000 sets of 60 differences of mean zero: 50 rejected if exact, standard error 6.9."""
    generator = np.random.default_rng(1)
    values = generator.exponential(size=(1000, 60)) - 1 if skewed else generator.standard_normal((1000, 60))
    rejected = sum(permutation_p_value(row) <= 0.05 for row in values)
    assert 30 <= rejected <= 71 + 20 * skewed


def test_the_permutation_test_sees_what_a_t_test_sees() -> None:
    values = 0.4 + np.random.default_rng(2).standard_normal((300, 60))
    ours = np.array([permutation_p_value(row) for row in values])
    theirs = scipy.stats.ttest_1samp(values, 0, axis=1).pvalue
    assert abs(np.mean(ours <= 0.05) - np.mean(theirs <= 0.05)) < 0.02
    assert np.abs(ours - theirs).max() < 0.05


def test_p_values_are_of_exchanged_signs() -> None:
    """Three equal differences: both signs agree in all clips with probability 1/4, whatever their size."""
    assert permutation_p_value(np.full(3, 7.0)) == pytest.approx(0.25, abs=0.03)
    assert permutation_p_value(np.full(40, 0.1)) == 1 / (NUM_PERMUTATIONS + 1)
    assert permutation_p_value(np.zeros(9)) == 1.0
    values = np.random.default_rng(3).standard_normal(30)
    assert permutation_p_value(values) == permutation_p_value(-values) == permutation_p_value(5 * values)


def test_the_difference_of_systems_that_move_together_is_known_better() -> None:
    """Hard clips are hard for both: 0.1 apart with a spread of 1 over clips shows only pair by pair."""
    generator = np.random.default_rng(4)
    hard = generator.standard_normal(100)
    one, two = (hard + 0.05 * generator.standard_normal(100) + shift for shift in (0.1, 0.0))
    paired = paired_difference(one.mean(), one, two.mean(), two)
    apart = paired_difference(one.mean(), one, two.mean(), generator.permutation(two))
    assert paired is not None and apart is not None
    assert paired.high - paired.low < 0.1 * (apart.high - apart.low)
    assert paired.separable and not apart.separable
    assert paired.value == apart.value == pytest.approx(0.1, abs=0.02)
    other = paired_difference(two.mean(), two, one.mean(), one)
    assert other is not None and (other.low, other.high) == pytest.approx((-paired.high, -paired.low))
    assert other.p_value == paired.p_value == 1 / (NUM_PERMUTATIONS + 1)


def test_the_difference_that_is_shown_is_the_one_that_is_tested() -> None:
    """Not that of the pseudo-values' means, should they differ."""
    values = np.random.default_rng(5).standard_normal(50)
    values -= values.mean()
    near, far = (paired_difference(value, values, 0.0, np.zeros(50)) for value in (0.01, 3.0))
    assert near is not None and far is not None
    assert near.p_value > 0.5 and not near.separable
    assert far.p_value < 0.001 and far.separable


def test_pseudo_values_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "pseudo_values.safetensors"
    assert read_replicates(path) == {}
    values = np.random.default_rng(0).standard_normal((50, 2))
    write_replicates(path, {"fd": values[:, 0], "kl": values[:, 1]})
    found = read_replicates(path)
    assert {name: column.tobytes() for name, column in found.items()} == {
        "fd": values[:, 0].tobytes(),
        "kl": values[:, 1].tobytes(),
    }
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"pseudo_values\.safetensors: not readable .*score again"):
        read_replicates(path)

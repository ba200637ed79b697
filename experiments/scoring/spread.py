"""The spread of training beside the spread of clips, and what a difference would need to be seen.

Two rows trained with S seeds and scored on the same n clips give S x n differences of pseudo-values. A two-way layout
of random effects (Searle, Casella and McCulloch, Variance Components, chapter 4) splits their variance into that of
seeds, that of clips (clips that are harder for one row whatever its seed), and the rest. With numpy alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from experiments.scoring.intervals import COVERAGE

POWER = 0.8


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a score, or of a difference of two rows, that one seed or one clip has.

    Attributes:
        training: between seeds, on all clips that there could be; None with one seed, which says nothing of it.
        clips: between clips, common to all seeds; with one seed, that of a clip as it is.
        rest: between clips, of each seed's own; 0 with one seed.
    """

    training: float | None
    clips: float
    rest: float

    def over_clips(self, num_clips: int) -> float:
        """Standard deviation of one seed's score over sets of clips: what stands beside `training`."""
        return math.sqrt((self.clips**2 + self.rest**2) / num_clips)

    def standard_error(self, num_clips: int, num_seeds: int) -> float:
        """That of the mean over seeds and clips; without the spread of training where it isn't known."""
        between = (self.training or 0.0) ** 2 / num_seeds
        return math.sqrt(between + self.clips**2 / num_clips + self.rest**2 / (num_seeds * num_clips))

    def power(self, difference: float, num_clips: int, num_seeds: int) -> float:
        """Chance that a true difference of this size is separable, by the normal approximation."""
        normal = NormalDist()
        error = self.standard_error(num_clips, num_seeds)
        if error == 0:
            return 1.0 if difference else 1 - COVERAGE
        shift, limit = abs(difference) / error, normal.inv_cdf((1 + COVERAGE) / 2)
        return normal.cdf(shift - limit) + normal.cdf(-shift - limit)

    def num_clips_needed(self, difference: float, num_seeds: int, power: float = POWER) -> int | None:
        """Fewest clips that give a difference this power; None where so few seeds never do.

        Raises:
            ValueError: the difference isn't positive in size, or the power isn't between 5 % and 100 %.
        """
        if difference == 0 or not 1 - COVERAGE < power < 1:
            raise ValueError(f"expected a difference other than 0 and a power in (0.05, 1), got {difference}, {power}")
        normal = NormalDist()
        # The far tail, of a significant difference of the wrong sign, is left out: at most 2.5 %, and then very little.
        allowed = (abs(difference) / (normal.inv_cdf((1 + COVERAGE) / 2) + normal.inv_cdf(power))) ** 2
        left = allowed - (self.training or 0.0) ** 2 / num_seeds
        if left <= 0:
            return None
        return max(1, math.ceil((self.clips**2 + self.rest**2 / num_seeds) / left))


@dataclass(frozen=True)
class Need:
    """How many clips a difference needs at a number of seeds; None where no number of clips would do."""

    num_seeds: int
    num_clips: int | None


def measure_spread(pseudo_values: Sequence[NDArray[np.float64]]) -> Spread:
    """Spread of a row's score, or of a difference of two rows, from its pseudo-values on the same clips.

    Estimates by analysis of variance; one that would be negative is 0. With two or three seeds that of training is
    rough: its own relative error is about 1 / sqrt(2 (seeds - 1)).

    Args:
        pseudo_values: for each seed [n]; for a difference, those of one row less those of the other.

    Raises:
        ValueError: there is no seed, they have different numbers of clips, or there are fewer than two clips.
    """
    if not pseudo_values or len({len(values) for values in pseudo_values}) > 1 or len(pseudo_values[0]) < 2:
        raise ValueError(
            "expected pseudo-values of the same clips, two or more, for each seed; "
            f"got {[len(values) for values in pseudo_values]} clips"
        )
    table = np.stack(pseudo_values)
    num_seeds, num_clips = table.shape
    if num_seeds == 1:
        return Spread(None, float(table.std(ddof=1)), 0.0)
    of_seed, of_clip = table.mean(1), table.mean(0)
    rest = table - of_seed[:, None] - of_clip + table.mean()
    rest_variance = float((rest**2).sum()) / ((num_seeds - 1) * (num_clips - 1))
    training = float(of_seed.var(ddof=1)) - rest_variance / num_clips
    clips = float(of_clip.var(ddof=1)) - rest_variance / num_seeds
    return Spread(math.sqrt(max(0.0, training)), math.sqrt(max(0.0, clips)), math.sqrt(rest_variance))


def needs(spread: Spread, difference: float, seeds: Iterable[int] = (1, 3, 5, 10), power: float = POWER) -> list[Need]:
    """How many clips a difference of a given size would need, for several numbers of seeds.

    Args:
        spread: measured on the difference of two rows like those in question.
        difference: in the score's units.
        seeds: numbers of training seeds.
        power: chance with which the difference should be separable.

    Raises:
        ValueError: as in `Spread.num_clips_needed`.
    """
    return [Need(number, spread.num_clips_needed(difference, number, power)) for number in seeds]

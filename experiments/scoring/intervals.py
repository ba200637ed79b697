"""Intervals and tests from pseudo-values of clips, with numpy alone: looking at results imports no torch.

A scoring keeps a *pseudo-value* of each clip and score (`mntp.metrics.jackknife`), whose mean is the score. Two systems
that were scored on the same clips are compared clip by clip: the mean of their pseudo-values' differences is the
difference of the scores. Whether it could be chance is decided by a paired permutation test: under the null hypothesis
of equal scores, exchanging the two systems' roles in a clip, which turns the sign of its difference, changes nothing.

Exchanging the clips themselves and computing a Frechet distance anew would test that both systems make the same sounds,
not that they are equally far from the references: where a mean was shifted in one and too little varied in the other,
at equal distances, it called them different in 65 to 100 % of trials. `mntp bench scores` measures this.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from mntp.io.files import atomic_write

COVERAGE = 0.95
NUM_PERMUTATIONS = 1999
REPLICATES = "pseudo_values.safetensors"

Replicates = NDArray[np.float64]
"""Pseudo-values of a score, one for each clip [n], in the order of the files' names."""


@dataclass(frozen=True)
class Difference:
    """A difference of two rows with its interval.

    Attributes:
        value: the first row's score less the second's.
        low: lower end of the 95 % interval.
        high: upper end.
        p_value: of the permutation test that the scores are equal.
    """

    value: float
    low: float
    high: float
    p_value: float

    @property
    def separable(self) -> bool:
        """Whether the test rejects equal scores at 5 %, and the interval leaves zero out."""
        return self.p_value <= 1 - COVERAGE and (self.low > 0 or self.high < 0)

    def shown(self, digits: int, separable: bool) -> str:
        """As `+1.000 [+0.810, +1.190]`, and whether it isn't separable."""
        text = f"{self.value:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"
        return text if separable else f"{text} not separable"


def interval(value: float, replicates: Replicates, floor: float = -math.inf) -> tuple[float, float] | None:
    """Ends of the 95 % interval of a score, by Student's t; None below two pseudo-values or if one isn't finite.

    Args:
        value: the score.
        replicates: its pseudo-values [n].
        floor: the least value that the quantity can have. The lower end isn't below it, unless the score itself is, as
            an unbiased estimate of a small distance may be.
    """
    num_clips = len(replicates)
    if num_clips < 2 or not np.isfinite(replicates).all():
        return None
    half_width = student_t(num_clips - 1) * float(np.std(replicates, ddof=1)) / math.sqrt(num_clips)
    return max(value - half_width, min(value, floor)), value + half_width


def paired_difference(
    value: float, replicates: Replicates, other_value: float, other_replicates: Replicates
) -> Difference | None:
    """Difference of two scores on the same clips; None where one has no pseudo-values, or theirs are of other clips."""
    if len(replicates) != len(other_replicates):
        return None
    differences = replicates - other_replicates
    ends = interval(value - other_value, differences)
    if ends is None:
        return None
    # Around the difference that is shown, in case the pseudo-values were stored with another rounding.
    moved = differences - differences.mean() + (value - other_value)
    return Difference(value - other_value, *ends, p_value=permutation_p_value(moved))


def permutation_p_value(differences: Replicates) -> float:
    """Two-sided p-value of a mean difference, by 1,999 random exchanges of the two systems' roles in each clip.

    Exact if each clip's difference is distributed symmetrically about zero under the null hypothesis, and to first
    order for any other distribution of mean zero. The exchanges are a function of the number of clips alone. The least
    p-value is 1 / 2000.

    Args:
        differences: [n] of pseudo-values on the same clips.
    """
    observed = abs(float(differences.sum()))
    if observed == 0:
        return 1.0
    permuted = np.abs(_signs(len(differences)) @ differences)
    at_least = int((permuted >= observed * (1 - 1e-12)).sum())  # rounding doesn't decide ties
    return (1 + at_least) / (NUM_PERMUTATIONS + 1)


@functools.lru_cache(maxsize=4)
def _signs(num_clips: int) -> NDArray[np.float64]:
    """Random signs [NUM_PERMUTATIONS, num_clips]."""
    return np.random.default_rng([2020, num_clips]).choice((-1.0, 1.0), (NUM_PERMUTATIONS, num_clips))


def student_t(degrees: int) -> float:
    """Student's t that a share of `COVERAGE` lies within; to 1 % at 3 degrees of freedom and 0.01 % at 20.

    The expansion in 1 / degrees of Abramowitz and Stegun, 26.7.5; exact at one and two degrees.
    """
    p = (1 + COVERAGE) / 2
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def replicates_path(metrics: Path) -> Path:
    """Where `mntp evaluate` puts the pseudo-values of the scores in a JSON file."""
    return metrics.with_name(f"{metrics.stem}.{REPLICATES}")


def write_replicates(path: Path, replicates: Mapping[str, Replicates]) -> None:
    """Write pseudo-values by score, whole or not at all."""
    with atomic_write(path, "wb") as file:
        file.write(save({name: np.ascontiguousarray(values) for name, values in replicates.items()}))


def read_replicates(path: Path) -> dict[str, Replicates]:
    """Pseudo-values by score; {} where there are none.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        return {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not readable ({error}); remove it with metrics.json and score again") from error

"""Intervals from replicates, with numpy alone: looking at results imports no torch.

The replicates of a Frechet distance or an inception score are themselves biased: a set drawn with replacement holds
fewer different clips. What they tell is the spread, so intervals are the replicates' percentiles moved to where their
mean is the score itself: how the score would vary with other clips of the same kind and number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from mntp.io.files import atomic_write

COVERAGE = 0.95
REPLICATES = "replicates.safetensors"

Replicates = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A difference of two rows with its interval.

    Attributes:
        value: the first row's score less the second's.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def separable(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def shown(self, digits: int, separable: bool) -> str:
        """As `+1.000 [+0.810, +1.190]`, and whether it isn't separable."""
        text = f"{self.value:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"
        return text if separable else f"{text} not separable"


def interval(value: float, replicates: Replicates) -> tuple[float, float] | None:
    """Ends of the 95 % interval of a score; None where nothing was resampled or a replicate isn't finite."""
    if not len(replicates) or not np.isfinite(replicates).all():
        return None
    tails = (1 - COVERAGE) / 2
    low, high = np.quantile(replicates - replicates.mean(), (tails, 1 - tails))
    return float(value + low), float(value + high)


def paired_difference(
    value: float, replicates: Replicates, other_value: float, other_replicates: Replicates
) -> Difference | None:
    """Difference of two scores whose replicates rest on the same draws; None where one has none."""
    if not len(replicates) or len(replicates) != len(other_replicates):
        return None
    ends = interval(value - other_value, replicates - other_replicates)
    return None if ends is None else Difference(value - other_value, *ends)


def replicates_path(metrics: Path) -> Path:
    """Where `mntp evaluate` puts the replicates of the scores in a JSON file."""
    return metrics.with_name(f"{metrics.stem}.{REPLICATES}")


def write_replicates(path: Path, replicates: Mapping[str, Replicates]) -> None:
    """Write replicates by score, whole or not at all."""
    with atomic_write(path, "wb") as file:
        file.write(save({name: np.ascontiguousarray(values) for name, values in replicates.items()}))


def read_replicates(path: Path) -> dict[str, Replicates]:
    """Replicates by score; {} where there are none.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        return {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not readable ({error}); remove it with metrics.json and score again") from error

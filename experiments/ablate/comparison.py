"""Differences between the rows of a table, clip by clip: whether the data can tell them apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.ablate.metrics import METRICS
from experiments.ablate.result import Result
from experiments.ablate.status import eval_folder
from experiments.intervals import REPLICATES, Difference, Replicates, paired_difference, read_replicates


@dataclass(frozen=True)
class Comparison:
    """A row against another one in one metric.

    Attributes:
        row: the row.
        other: the row that it is compared with.
        metric: the metric's name.
        seeds: training seeds that both rows have.
        difference: mean over these seeds of the row's value less the other's, with the 95 % interval over clips.
        separable: the interval leaves zero out, and every seed's difference has the same sign.
    """

    row: str
    other: str
    metric: str
    seeds: tuple[int, ...]
    difference: Difference
    separable: bool


class Comparer:
    """Compares rows of one table; replicates are read once per scoring.

    Args:
        results: of the table, all rows and seeds.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = {(result.cell.row, result.cell.seed): result for result in results}
        self._read: dict[Path, dict[str, Replicates]] = {}

    def compare(self, row: str, other: str, metric: str) -> Comparison | None:
        """Compare two rows; None where no seed has replicates of both."""
        seeds, parts = [], []
        for (name, seed), result in self._results.items():
            baseline = self._results.get((other, seed))
            if name == row and baseline and (difference := self._pair(result, baseline, metric)):
                seeds.append(seed)
                parts.append(difference)
        if not parts:
            return None
        values, replicates = zip(*parts, strict=True)
        mean = float(np.mean(values))
        moved = np.mean(np.stack(replicates), axis=0)
        total = paired_difference(mean, moved, 0.0, np.zeros_like(moved))
        if total is None:
            return None
        agree = len({value > 0 for value in values}) == 1
        return Comparison(row, other, metric, tuple(seeds), total, total.separable and agree)

    def against(self, baseline: str, metrics: Sequence[str]) -> Iterator[Comparison]:
        """Compare every trained row with the baseline."""
        rows = dict.fromkeys(row for (row, _), result in self._results.items() if not result.cell.reference)
        for row in rows:
            for metric in metrics:
                if row != baseline and METRICS[metric].better and (found := self.compare(row, baseline, metric)):
                    yield found

    def _pair(self, one: Result, two: Result, metric: str) -> tuple[float, Replicates] | None:
        value, other = one.value(metric), two.value(metric)
        replicates, others = (self._replicates(result).get(metric) for result in (one, two))
        if value is None or other is None or replicates is None or others is None or len(replicates) != len(others):
            return None
        return value - other, replicates - others

    def _replicates(self, result: Result) -> dict[str, Replicates]:
        path = eval_folder(Path(result.cell.run_dir), result.cell.protocol_hash) / REPLICATES
        if path not in self._read:
            self._read[path] = read_replicates(path)
        return self._read[path]

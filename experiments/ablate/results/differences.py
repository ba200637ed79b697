"""Differences between the rows of a table, clip by clip: whether the data can tell them apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.ablate.results.result import Result
from experiments.runs.state import DONE, eval_folder
from experiments.scoring.intervals import REPLICATES, Difference, Replicates, paired_difference, read_replicates
from experiments.scoring.metrics import METRICS


@dataclass(frozen=True)
class Comparison:
    """A row against another one in one metric.

    Attributes:
        row: the row.
        other: the row that it is compared with.
        metric: the metric's name.
        seeds: training seeds that both rows have.
        difference: mean over these seeds of the row's value less the other's, with the 95 % interval over clips.
        separable: the permutation test over clips rejects equal scores at 5 %, the interval leaves zero out, and every
            seed's difference has the same sign.
    """

    row: str
    other: str
    metric: str
    seeds: tuple[int, ...]
    difference: Difference
    separable: bool


@dataclass(frozen=True)
class _Resampled:
    """A result with the pseudo-values of its scores."""

    result: Result
    replicates: dict[str, Replicates]


def compare_with(baseline: str, results: Sequence[Result], metrics: Sequence[str]) -> Iterator[Comparison]:
    """Compare every trained row of a table with one of them, in every metric that has a better direction.

    Pseudo-values are read once per scoring; those of one row and of the baseline are held at a time.

    Args:
        baseline: the row.
        results: of the table, all rows and seeds.
        metrics: by name.

    Yields:
        Comparisons by row, then by metric; none where no seed has pseudo-values of both rows.
    """
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result.cell.row, []).append(result)
    others = {result.cell.seed: _resampled(result) for result in rows.get(baseline, ())}
    for row, of_row in rows.items():
        if row == baseline or of_row[0].cell.reference:
            continue
        pairs = [(_resampled(result), others[result.cell.seed]) for result in of_row if result.cell.seed in others]
        for metric in metrics:
            if METRICS[metric].better and (found := _compare(row, baseline, metric, pairs)):
                yield found


def _resampled(result: Result) -> _Resampled:
    path = eval_folder(Path(result.cell.run_dir), result.cell.protocol_hash) / REPLICATES
    return _Resampled(result, read_replicates(path) if result.state.state == DONE else {})


def _compare(row: str, other: str, metric: str, pairs: Sequence[tuple[_Resampled, _Resampled]]) -> Comparison | None:
    """Compare two rows over the seeds that both have."""
    seeds, values, replicates = [], [], []
    for one, two in pairs:
        value, baseline = one.result.value(metric), two.result.value(metric)
        ours, theirs = one.replicates.get(metric), two.replicates.get(metric)
        if value is None or baseline is None or ours is None or theirs is None or len(ours) != len(theirs):
            continue
        seeds.append(one.result.cell.seed)
        values.append(value - baseline)
        replicates.append(ours - theirs)
    if not values:
        return None
    moved = np.mean(np.stack(replicates), axis=0)
    total = paired_difference(float(np.mean(values)), moved, 0.0, np.zeros_like(moved))
    if total is None:
        return None
    agree = len({value > 0 for value in values}) == 1
    return Comparison(row, other, metric, tuple(seeds), total, total.separable and agree)

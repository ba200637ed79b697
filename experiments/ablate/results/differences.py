"""Differences between the rows of a table, clip by clip: whether the data can tell them apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.runs.state import DONE, eval_folder
from experiments.scoring.intervals import REPLICATES, Difference, Replicates, paired_difference, read_replicates

COLUMNS = (
    "row", "baseline", "metric", "seeds", "difference", "difference_low", "difference_high", "separable",
    "difference_text",
)  # fmt: skip


@dataclass(frozen=True)
class _Scored:
    """The scores of one cell with their pseudo-values, by metric."""

    values: dict[str, float | None]
    replicates: dict[str, Replicates]


def compare_with(baseline: str | None, table: pd.DataFrame) -> pd.DataFrame:
    """Compare every trained row of a table with one of them, in every metric that has a better direction.

    Pseudo-values are read once per scoring; those of one row and of the baseline are held at a time.

    Args:
        baseline: the row, or None.
        table: its rows by cell and metric, as in `results_frame`.

    Returns:
        A line for each row and metric whose pseudo-values both rows have for some training seed: `row`, `baseline`,
        `metric`, `seeds` that both have, `difference` (mean over these seeds of the row's value less the baseline's)
        with the ends of its 95 % interval over clips, `separable` (the permutation test over clips rejects equal scores
        at 5 %, the interval leaves zero out, and every seed's difference has the same sign) and `difference_text`,
        which says all of this.
    """
    return pd.DataFrame(_differences(baseline, table) if baseline else [], columns=COLUMNS, dtype=object)


def _differences(baseline: str, table: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    rows = _by_row_and_seed(table[~table.reference | (table.row == baseline)])
    others = {seed: _scored(metrics) for seed, metrics in rows.pop(baseline, {}).items()}
    for row, seeds in rows.items():
        pairs = {seed: (_scored(metrics), others[seed]) for seed, metrics in seeds.items() if seed in others}
        for item in next(iter(seeds.values())):
            found = _compare(item.metric, pairs) if item.shown and item.better else None
            if found is not None:
                yield row, baseline, item.metric, *_facts(item.digits, *found)


def _by_row_and_seed(table: pd.DataFrame) -> dict[str, dict[int, list[Any]]]:
    """The metrics of each cell, as named tuples."""
    rows: dict[str, dict[int, list[Any]]] = {}
    for item in table.itertuples():
        rows.setdefault(item.row, {}).setdefault(item.seed, []).append(item)
    return rows


def _facts(digits: int, seeds: str, difference: Difference, separable: bool) -> tuple[Any, ...]:
    ends = difference.value, difference.low, difference.high
    text = "equal" if ends == (0, 0, 0) else difference.shown(digits, separable)  # rows with the same samples
    return seeds, *ends, separable, text


def _scored(metrics: Sequence[Any]) -> _Scored:
    cell = metrics[0]
    path = eval_folder(Path(cell.run_dir), cell.protocol_hash) / REPLICATES
    return _Scored({item.metric: item.value for item in metrics}, read_replicates(path) if cell.state == DONE else {})


def _compare(metric: str, pairs: dict[int, tuple[_Scored, _Scored]]) -> tuple[str, Difference, bool] | None:
    """Compare two rows over the seeds that both have: these seeds, the mean difference, whether it is separable."""
    found = {seed: moved for seed, (ours, theirs) in pairs.items() if (moved := _moved(metric, ours, theirs))}
    if not found:
        return None
    values = [value for value, _ in found.values()]
    replicates = np.mean(np.stack([each for _, each in found.values()]), axis=0)
    total = paired_difference(float(np.mean(values)), replicates, 0.0, np.zeros_like(replicates))
    if total is None:
        return None
    agree = len({value > 0 for value in values}) == 1
    return " ".join(map(str, found)), total, total.separable and agree


def _moved(metric: str, ours: _Scored, theirs: _Scored) -> tuple[float, Replicates] | None:
    """The difference of two scores, and that of their pseudo-values; None where either is missing."""
    value, other = ours.values.get(metric), theirs.values.get(metric)
    replicates, others = ours.replicates.get(metric), theirs.replicates.get(metric)
    if value is None or other is None or replicates is None or others is None or len(replicates) != len(others):
        return None
    return value - other, replicates - others

"""Differences between the rows of a table, clip by clip: whether the data can tell them apart."""

from collections.abc import Iterator
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
    """The scores of one cell with their replicates, by metric."""

    values: dict[str, float | None]
    replicates: dict[str, Replicates]


def compare_with(baseline: str | None, table: pd.DataFrame) -> pd.DataFrame:
    """Compare every trained row of a table with one of them, in every metric that has a better direction.

    Replicates are read once per scoring; those of one row and of the baseline are held at a time.

    Args:
        baseline: the row, or None.
        table: its rows by cell and metric, as in `results_frame`.

    Returns:
        A line for each row and metric whose replicates both rows have for some training seed: `row`, `baseline`,
        `metric`, `seeds` that both have, `difference` (mean over these seeds of the row's value less the baseline's)
        with the ends of its 95 % interval over clips, `separable` (the interval leaves zero out, and every seed's
        difference has the same sign) and `difference_text`, which says all of this.
    """
    return pd.DataFrame(_differences(baseline, table) if baseline else [], columns=COLUMNS, dtype=object)


def _differences(baseline: str, table: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    others = {seed: _scored(cell) for seed, cell in table[table.row == baseline].groupby("seed")}
    trained = table[~table.reference & (table.row != baseline)]
    for row, of_row in trained.groupby("row", sort=False):
        pairs = {seed: (_scored(cell), others[seed]) for seed, cell in of_row.groupby("seed") if seed in others}
        rated = of_row[(of_row.shown > 0) & (of_row.better != 0)].drop_duplicates("metric")
        for metric, digits in zip(rated.metric, rated.digits, strict=True):
            if found := _compare(metric, pairs):
                seeds, difference, separable = found
                ends = difference.value, difference.low, difference.high
                text = "equal" if ends == (0, 0, 0) else difference.shown(digits, separable)  # the same samples
                yield row, baseline, metric, seeds, *ends, separable, text


def _scored(cell: pd.DataFrame) -> _Scored:
    about = cell.iloc[0]
    path = eval_folder(Path(about.run_dir), about.protocol_hash) / REPLICATES
    values = dict(zip(cell.metric, cell.value, strict=True))
    return _Scored(values, read_replicates(path) if about.state == DONE else {})


def _compare(metric: str, pairs: dict[Any, tuple[_Scored, _Scored]]) -> tuple[str, Difference, bool] | None:
    """Compare two rows over the seeds that both have."""
    seeds, values, replicates = [], [], []
    for seed, (ours, theirs) in pairs.items():
        value, baseline = ours.values[metric], theirs.values[metric]
        moved, still = ours.replicates.get(metric), theirs.replicates.get(metric)
        if value is None or baseline is None or moved is None or still is None or len(moved) != len(still):
            continue
        seeds.append(str(seed))
        values.append(value - baseline)
        replicates.append(moved - still)
    if not values:
        return None
    mean = np.mean(np.stack(replicates), axis=0)
    total = paired_difference(float(np.mean(values)), mean, 0.0, np.zeros_like(mean))
    if total is None:
        return None
    agree = len({value > 0 for value in values}) == 1
    return " ".join(seeds), total, total.separable and agree

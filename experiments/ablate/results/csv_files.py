"""Results as CSV, with full precision."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.ablate.results.table import lines_of

COLUMNS = (
    "matrix", "table", "row", "system", "scale", "seed", "train_hash", "protocol_hash", "metric", "value",
    "ci_low", "ci_high", "n", "coverage", "gpu_seconds", "state", "commit",
)  # fmt: skip

ENDS = ("ci_low", "ci_high")


def results_csv(frame: pd.DataFrame) -> str:
    """Return the long table: a line per cell and metric; a cell that isn't done has its metrics without values.

    `coverage` is the share of the protocol's clips that was scored, `n` the number of clips that the value and its
    95 % interval rest on.
    """
    listed = frame[frame.listed].assign(value=lambda rows: rows.exact) if len(frame) else frame
    return listed.reindex(columns=COLUMNS).to_csv(index=False, lineterminator="\n")


def table_csv(table: pd.DataFrame) -> str:
    """Return one table: `row`, settings, state, ours with full precision and intervals, then `published_*`.

    A number that is missing is an empty field beside its state; one that doesn't apply is `n/a`.
    """
    lines = [
        _fields(cell, ours, paper)
        for (cell, ours), (_, paper) in zip(lines_of(table), lines_of(table, "printed"), strict=True)
    ]
    return csv_text([name for name, _ in lines[0]], [[value for _, value in line] for line in lines])


def _fields(cell: Any, ours: Sequence[Any], paper: Sequence[Any]) -> list[tuple[str, Any]]:
    """The columns of one line: headings with values."""
    intervals = [(f"{item.metric}_{end}", getattr(item, end)) for item in ours if item.better for end in ENDS]
    return [
        ("row", cell.row),
        *cell.settings.items(),
        *((name, getattr(cell, name)) for name in ("state", "scale", "judge", "seed", "num_clips")),
        *((item.metric, item.exact) for item in ours),
        *intervals,
        ("protocol_hash", cell.protocol_hash),
        *((f"published_{item.metric}", item.published) for item in paper),
    ]


def differences_csv(table: pd.DataFrame) -> str:
    """Return the rows' differences from the baseline, a line per row and metric."""
    compared = table[table.separable.notna()].drop_duplicates(["row", "metric"])
    compared = compared.assign(separable=["yes" if found else "no" for found in compared.separable])
    names = {"difference_low": "ci_low", "difference_high": "ci_high"}
    columns = ["row", "baseline", "metric", "seeds", "difference", *names, "separable"]
    return compared[columns].rename(columns=names).to_csv(index=False, lineterminator="\n")


def csv_text(names: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return lines as CSV under these headings; numbers keep all of their digits, None is an empty field."""
    return pd.DataFrame(lines, columns=names, dtype=object).to_csv(index=False, lineterminator="\n")

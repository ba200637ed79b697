"""From run folders to `results.csv` and the tables. Reads files only; needs neither torch nor the matrix."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.ablate.planned import Plan, read_plan
from experiments.ablate.status import DONE, cell_state
from experiments.ablate.tables import METRICS, Result, table_csv, table_markdown
from mntp.files import atomic_write

COLUMNS = (
    "matrix", "table", "row", "system", "scale", "seed", "train_hash", "protocol_hash", "metric", "value",
    "ci_low", "ci_high", "n", "coverage", "gpu_seconds", "state", "commit",
)  # fmt: skip
JUDGED = ("fd_judge", "kl_judge", "is_judge", "text_judge")
NOT_METRICS = ("num_clips",)


def gather_results(folder: Path) -> dict[str, list[Result]]:
    """Read the run folders of the tables that were asked for; write `results.csv` and each table's CSV and Markdown.

    Args:
        folder: where `plan.json` lies, and where the tables go.

    Returns:
        The results per table, in the plan's order.

    Raises:
        FileNotFoundError: nothing was planned there.
        ValueError: the plan can't be read.
    """
    plan = read_plan(folder)
    asked = {cell.table for cell in plan.cells if cell.selected}
    results = [Result(cell, cell_state(cell)) for cell in plan.cells if cell.table in asked]
    tables = {name: [r for r in results if r.cell.table == name] for name in plan.titles if name in asked}
    _write(folder / "results.csv", results_csv(plan, results))
    for name, rows in tables.items():
        _write(folder / f"{name}.csv", table_csv(rows, plan.columns[name]))
        _write(folder / f"{name}.md", table_markdown(plan.titles[name], rows, plan.columns[name]))
    return tables


def results_csv(plan: Plan, results: Sequence[Result]) -> str:
    """Return the long table: a line per cell and metric; a cell that isn't done has its metrics without values.

    `coverage` is the share of the protocol's clips that was scored. Intervals need several seeds or a resampling
    of clips; they are empty here.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for result in results:
        for metric in _metrics(result):
            writer.writerow(_long_row(plan, result, metric))
    return text.getvalue()


def _long_row(plan: Plan, result: Result, metric: str) -> dict[str, object]:
    cell, run = result.cell, result.state.run
    row: dict[str, object] = {
        "matrix": plan.matrix, "table": cell.table, "row": cell.row, "system": cell.system, "scale": cell.scale,
        "seed": cell.seed, "train_hash": cell.train_hash, "protocol_hash": cell.protocol_hash, "metric": metric,
        "state": result.state.state, "commit": run.get("commit") or "",
    }  # fmt: skip
    value = result.value(metric)
    if value is None:
        return row
    row["value"], row["gpu_seconds"] = repr(value), run.get("gpu_seconds", "")
    clips = result.state.metrics.get("num_clips")
    if clips is not None and metric in JUDGED:  # the held-out losses hear the validation clips instead
        row["n"], row["coverage"] = clips, clips / plan.protocols[cell.protocol_hash]["num_clips"]
    return row


def _metrics(result: Result) -> Iterator[str]:
    """The metrics of a cell: those it has, else those that are missing."""
    yield from (name for name in METRICS if result.state.state != DONE or result.value(name) is not None)
    for name in sorted(result.state.metrics):
        if name not in METRICS and name not in NOT_METRICS and result.value(name) is not None:
            yield name


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)

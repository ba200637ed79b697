"""From run folders to `results.csv` and the tables. Reads files only; needs neither torch nor the matrix."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import Plan, read_plan
from experiments.ablate.results.figures import write_figures
from experiments.ablate.results.formats import compare_rows, differences_csv, table_csv, table_markdown
from experiments.ablate.results.latex import table_latex
from experiments.ablate.results.result import Result
from experiments.ablate.results.table import shown_table
from experiments.runs.state import DONE
from experiments.scoring.metrics import JUDGED, shown_metrics
from experiments.scoring.protocol import scoring_hash
from mntp.io.files import atomic_write

COLUMNS = (
    "matrix", "table", "row", "system", "scale", "seed", "train_hash", "protocol_hash", "metric", "value",
    "ci_low", "ci_high", "n", "coverage", "gpu_seconds", "state", "commit",
)  # fmt: skip
NOT_METRICS = ("num_clips", "num_held_out_clips", "coverage")


def gather_results(folder: Path) -> dict[str, list[Result]]:
    """Read the run folders of the tables that were asked for; write `results.csv`, each table's files, and figures.

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
    tables = {name: [r for r in results if r.cell.table == name] for name in plan.tables if name in asked}
    for name, rows in tables.items():
        _check_scored_alike(name, rows, plan)
    _write(folder / "results.csv", results_csv(plan, results))
    for name, rows in tables.items():
        table = plan.tables[name]
        comparisons = compare_rows(rows, table, plan.judge)
        _write(folder / f"{name}.csv", table_csv(rows, table, plan.judge))
        _write(folder / f"{name}_differences.csv", differences_csv(comparisons))
        _write(folder / f"{name}.md", table_markdown(rows, table, plan.judge, comparisons))
        _write(folder / f"{name}.tex", table_latex(shown_table(rows, table, plan.judge)))
    write_figures(folder, plan, tables)
    return tables


def _check_scored_alike(name: str, rows: Sequence[Result], plan: Plan) -> None:
    """The files of a table's rows must say that they were scored as planned, all in the same way."""
    for result in rows:
        found = result.state.metrics.get("scoring_hash")
        expected = scoring_hash(plan.protocols[result.cell.protocol_hash])
        if result.state.state == DONE and found != expected:
            raise ValueError(
                f"{name} row {result.cell.row}: its metrics.json in {result.cell.run_dir} was scored as {found}, the "
                f"table as {expected}: other references, captions or judge; remove it and run the cell again"
            )


def results_csv(plan: Plan, results: Sequence[Result]) -> str:
    """Return the long table: a line per cell and metric; a cell that isn't done has its metrics without values.

    `coverage` is the share of the protocol's clips that was scored, `n` the number of clips that the value and its
    95 % interval rest on.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for result in results:
        for metric in _metrics(result, plan.judge):
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
    row["n"] = result.num_clips(metric) or ""
    if ends := result.interval(metric):
        row["ci_low"], row["ci_high"] = map(repr, ends)
    if metric in JUDGED[plan.judge]:  # the held-out losses hear the validation clips instead
        row["coverage"] = result.state.metrics.get("coverage", "")
    return row


def _metrics(result: Result, judge: str) -> Iterator[str]:
    """The metrics of a cell: those it has, else those that are missing."""
    shown = shown_metrics(judge)
    yield from (name for name in shown if result.state.state != DONE or result.value(name) is not None)
    for name in sorted(result.state.metrics):
        if name not in shown and name not in NOT_METRICS and result.value(name) is not None:
            yield name


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)

"""From run folders to `results.csv`, tables and figures. Reads files only; needs neither torch nor the matrix.

What commands look at without results imports this module only where it gathers: pandas takes half a second.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import Plan, read_plan
from experiments.ablate.results.csv_files import differences_csv, results_csv, table_csv
from experiments.ablate.results.figures import SECONDS, points_csv, render, score_figure, score_points
from experiments.ablate.results.latex import table_latex
from experiments.ablate.results.markdown import table_markdown
from experiments.ablate.results.table import Result, results_frame, tables_of
from experiments.ablate.results.terminal import table_rich
from experiments.runs.state import DONE
from experiments.scoring.protocol import scoring_hash
from mntp.io.files import atomic_write


@dataclass(frozen=True)
class Gathered:
    """A plan and what its run folders say.

    Attributes:
        plan: the plan.
        results: the cells of the tables that were asked for, in the plan's order.
        frame: all that tables and figures show of them; see `results_frame`.
    """

    plan: Plan
    results: list[Result]
    frame: pd.DataFrame


def gather_results(folder: Path) -> Gathered:
    """Read the run folders of the tables that were asked for; write `results.csv`, each table's files, and figures.

    Args:
        folder: where `plan.json` lies, and where the tables go.

    Raises:
        FileNotFoundError: nothing was planned there.
        ValueError: the plan can't be read, or a row was scored in another way than planned.
    """
    plan = read_plan(folder)
    asked = {cell.table for cell in plan.cells if cell.selected}
    results = [Result(cell, cell_state(cell)) for cell in plan.cells if cell.table in asked]
    for result in results:
        _check_scored_as_planned(result, plan)
    frame = results_frame(plan, results)
    _write(folder / "results.csv", results_csv(frame))
    for name, table in tables_of(frame).items():
        _write(folder / f"{name}.csv", table_csv(table))
        _write(folder / f"{name}_differences.csv", differences_csv(table))
        _write(folder / f"{name}.md", table_markdown(table))
        _write(folder / f"{name}.tex", table_latex(table))
    _write_figures(folder, frame)
    return Gathered(plan, results, frame)


def show_tables(folder: Path, console: Console) -> None:
    """Gather the results of a planned folder, print the tables and say where they were written."""
    tables = tables_of(gather_results(folder).frame)
    for table in tables.values():
        console.print(table_rich(table))
    console.print(f"written: {folder}/results.csv, " + ", ".join(f"{name}.csv|md|tex" for name in tables))


def _check_scored_as_planned(result: Result, plan: Plan) -> None:
    """A finished row's `metrics.json` must say that it was scored as planned: rows of a table are scored alike."""
    found = result.state.metrics.get("plan_scoring_hash")
    expected = scoring_hash(plan.protocols[result.cell.protocol_hash])
    if result.state.state == DONE and found != expected:
        raise ValueError(
            f"{result.cell.table} row {result.cell.row}: its metrics.json in {result.cell.run_dir} was scored as "
            f"{found}, the table as {expected}: other references, captions or judge; remove it and run the cell again"
        )


def _write_figures(folder: Path, frame: pd.DataFrame) -> None:
    """Write each figure that has points as PNG; an older one without points goes.

    A CSV of what it shows stands beside `figure4`; Figures 6a and 6b rest on their tables' own CSV files.
    """
    for name, points in score_points(frame).items():
        path = folder / f"{name}.png"
        if points.empty:
            path.unlink(missing_ok=True)
            if name == SECONDS:
                path.with_suffix(".csv").unlink(missing_ok=True)
            continue
        with atomic_write(path, "wb") as file:
            file.write(render(score_figure(points, name), "png"))
        if name == SECONDS:
            _write(path.with_suffix(".csv"), points_csv(points))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)

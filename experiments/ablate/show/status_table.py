"""The table that `mntp ablate status` prints."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import Plan, PlannedCell
from experiments.ablate.slurm.state import Queue
from experiments.runs.state import STYLES, CellState, phase_seconds, seconds

RIGHT = ("train", "sample", "score", "restarts")


def cell_states(plan: Plan, queue: Queue) -> list[tuple[PlannedCell, CellState]]:
    """Return each planned cell with its state, by its folder and by the scheduler."""
    return [(cell, queue.state(Path(cell.run_dir), cell.protocol_hash, cell_state(cell))) for cell in plan.cells]


def status_table(plan: Plan, queue: Queue) -> Table:
    """Return each cell with its state, progress and times; and its job, if any cell was ever submitted.

    Args:
        plan: the plan.
        queue: of the plan's runs.
    """
    table = Table(title=f"{plan.matrix}, scale {plan.scale}", title_justify="left", caption=queue.silence or None)
    job_columns = ("job", "restarts", "where") if queue.runs else ()
    for name in ("cell", "system", "state", "train", "sample", "score", *job_columns, "run", "about"):
        table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    for cell, state in cell_states(plan, queue):
        table.add_row(
            Text(cell.label),
            Text(cell.system),
            Text(state.state, style=STYLES[state.state]),
            *(seconds(value) for value in phase_seconds(state)),
            *(_job(cell, queue) if job_columns else ()),
            Text(Path(cell.run_dir).name if cell.run_dir else ""),
            Text(" ".join(filter(None, (state.reason, f"same run as {cell.same_as}" if cell.same_as else "")))),
        )
    return table


def _job(cell: PlannedCell, queue: Queue) -> tuple[Text, Text, Text]:
    """Id, restarts and nodes of a cell's SLURM job; empty where it has none."""
    job = queue.job(Path(cell.run_dir), cell.protocol_hash)
    return (Text(job.job), Text(str(job.restarts)), Text(job.nodes)) if job else (Text(), Text(), Text())

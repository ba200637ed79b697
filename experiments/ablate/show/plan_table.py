"""What `mntp ablate plan` shows: what is done, cached, missing or stale, and what each cell changes."""

from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import Plan, PlannedCell
from experiments.runs.record import final_checkpoint
from experiments.runs.state import DONE, NOT_RUN, STYLES, CellState

CACHED, STALE, MISSING = "cached", "stale", "missing"
PLAN_STYLES = {**STYLES, CACHED: "green", STALE: "yellow", MISSING: "dim"}


def outlook(cell: PlannedCell, state: CellState) -> tuple[str, str]:
    """Return a cell's state in a plan, and why it is in it.

    Beside the states of `status`: cached (its run is trained; sampling and scoring are left), stale (nothing is there
    of what is planned, but an earlier plan's run of this cell is: its config, data, weights or protocol has changed
    since) and missing (nothing is there).
    """
    if state.state != NOT_RUN:
        return state.state, "" if state.state == DONE else state.reason
    if final_checkpoint(Path(cell.run_dir)).is_file():
        return CACHED, "trained; to be sampled and scored"
    if cell.earlier and Path(cell.earlier).is_dir():
        return STALE, f"an earlier plan had {'/'.join(Path(cell.earlier).parts[-3::2])}"
    return MISSING, state.reason


def plan_view(plan: Plan) -> tuple[Table, str]:
    """Return the table that `mntp ablate plan` prints, and the line that sums up the cells that were asked for.

    Every cell's files are read once.
    """
    table = Table(title=f"{plan.matrix}, scale {plan.scale}", title_justify="left")
    for name in ("cell", "system", "differs from the base config", "state", "run", "about"):
        table.add_column(name, overflow="fold")
    counts: Counter[str] = Counter()
    for cell in plan.cells:
        state, about = outlook(cell, cell_state(cell))
        counts[state] += cell.selected and not cell.same_as
        differences = "\n".join(f"{key} = {brief(value)}" for key, value in cell.differences.items())
        about = f"same run as {cell.same_as}" if cell.same_as else about
        run_name = Path(cell.run_dir).name if cell.run_dir else ""
        words = (cell.label, cell.system, differences)
        table.add_row(*map(Text, words), Text(state, style=PLAN_STYLES[state]), Text(run_name), Text(about))
    others = [f"{counts[state]} {state}" for state in PLAN_STYLES if state != DONE and counts[state]]
    return table, ", ".join([f"{counts[DONE]} done", *others])


def left_out(plan: Plan) -> list[str]:
    """Return what the products of axes leave out, a line for each reason."""
    return [
        f"{name}: {count} combinations left out: {reason}"
        for name, table in plan.tables.items()
        for reason, count in table.excluded.items()
    ]


def brief(value: Any) -> str:
    """One line for a value: a class with its arguments as `Uniform(low=0, high=1)`."""
    if isinstance(value, dict) and "class_path" in value:
        arguments = ", ".join(f"{key}={brief(item)}" for key, item in value.get("init_args", {}).items())
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    if isinstance(value, list):
        return f"[{', '.join(map(brief, value))}]"
    return str(value)

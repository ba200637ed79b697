"""The state of a planned cell."""

from pathlib import Path

from experiments.ablate.plan.plan_file import PlannedCell
from experiments.runs.state import NOT_RUN, CellState, read_state, untrained_needs


def cell_state(cell: PlannedCell) -> CellState:
    """Return the state of a planned cell, with the reason why one wasn't run."""
    state = read_state(Path(cell.run_dir), cell.protocol_hash)
    if state.state != NOT_RUN:
        return state
    if not cell.selected:
        return CellState(NOT_RUN, "not among the rows asked for")
    return CellState(NOT_RUN, untrained_needs(cell.needs) or "not started yet")

"""What the next plan should know of the last one: the runs that its cells had where they have others now."""

from dataclasses import replace
from pathlib import Path

from experiments.ablate.plan.plan_file import Plan, read_plan
from experiments.runs.record import final_checkpoint
from experiments.runs.state import eval_folder


def with_earlier(plan: Plan, folder: Path) -> Plan:
    """Note in each cell the run that the plan in `folder` had for it, if that is trained and another one now.

    A cell that was noted before and has still the same hashes keeps its note.

    Args:
        plan: the new plan.
        folder: where the last one's `plan.json` lies; none, or one of another format, tells nothing.
    """
    try:
        last = read_plan(folder)
    except (FileNotFoundError, ValueError):
        return plan
    before = {(cell.table, cell.row, cell.seed): cell for cell in last.cells}
    cells = []
    for cell in plan.cells:
        earlier = ""
        if old := before.get((cell.table, cell.row, cell.seed)):
            same = (old.train_hash, old.protocol_hash) == (cell.train_hash, cell.protocol_hash)
            known = not same and final_checkpoint(Path(old.run_dir)).is_file()
            earlier = str(eval_folder(Path(old.run_dir), old.protocol_hash)) if known else old.earlier
        cells.append(replace(cell, earlier=earlier))
    return replace(plan, cells=tuple(cells))

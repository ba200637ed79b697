"""From planned cells to the tasks of job arrays: one task a run, one array a resource shape."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from experiments.ablate.plan.plan_file import PlannedCell
from experiments.ablate.slurm.array import RunTask
from experiments.runs.launch import shape_of
from experiments.runs.record import final_checkpoint, is_trained


def tasks_of(cells: Iterable[PlannedCell]) -> list[RunTask]:
    """Return a task for each run of the cells, in their order; its scorings are done one after the other.

    A run that is trained already takes one device, whatever it was trained on.

    Args:
        cells: those to do; their runs' `config.yaml` is written.

    Raises:
        ValueError: a run leaves the number of its devices to the machine.
        OSError: a run's config can't be read.
    """
    runs: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        runs.setdefault(cell.run_dir, []).append(cell)
    return [_task(Path(run_dir), answered) for run_dir, answered in runs.items()]


def _task(run_dir: Path, cells: Sequence[PlannedCell]) -> RunTask:
    needs = {
        label: Path(folder)
        for cell in cells
        for label, folder in cell.needs.items()
        if Path(folder) != run_dir and not final_checkpoint(Path(folder)).is_file()
    }
    nodes = devices = 1
    if any(cell.source == "model" for cell in cells) and not is_trained(run_dir):
        # The loader in C: ten times as fast, and a matrix may have thousands of runs.
        config = yaml.CSafeLoader((run_dir / "config.yaml").read_text(encoding="utf-8")).get_single_data()
        nodes, devices = shape_of(config["trainer"])
    protocols = tuple(dict.fromkeys(cell.protocol_hash for cell in cells))
    return RunTask(run_dir, protocols, tuple(cell.label for cell in cells), needs, nodes, devices)


def arrays_of(tasks: Sequence[RunTask], max_tasks: int) -> list[list[RunTask]]:
    """Group tasks into arrays: equal in shape and in what they wait for; an array stands behind those it waits for.

    All tasks of an array wait for the same runs, so that one that fails holds up nothing but what needs it.

    Args:
        tasks: in the order to run.
        max_tasks: most tasks of an array.
    """
    groups: dict[tuple[str, frozenset[Path]], list[RunTask]] = {}
    for task in tasks:
        groups.setdefault((task.shape, frozenset(task.needs.values())), []).append(task)
    given = {task.run_dir for task in tasks}
    arrays: list[list[RunTask]] = []
    placed: set[Path] = set()
    waiting = list(groups.items())
    while waiting:
        ready = [(key, group) for key, group in waiting if key[1] & given <= placed]
        assert ready, "a matrix has no circle of needs"
        for _, group in ready:
            arrays += [group[first : first + max_tasks] for first in range(0, len(group), max_tasks)]
        placed |= {task.run_dir for _, group in ready for task in group}
        waiting = [entry for entry in waiting if entry not in ready]
    return arrays

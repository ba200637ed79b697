"""From jobs to the tasks of job arrays: one task for each run, one array for each resource shape."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.ablate.plan.job import Job
from experiments.ablate.slurm.array import RunTask
from experiments.runs.launch import shape_of
from experiments.runs.record import final_checkpoint, is_trained


def group_by_run(jobs: Iterable[Job]) -> list[RunTask]:
    """Return a task for each run of the jobs, in their order; its scorings are done one after the other.

    A run that is trained already takes one device, whatever it was trained on.

    Args:
        jobs: those to do.

    Raises:
        ValueError: a run leaves the number of its devices to the machine.
    """
    runs: dict[Path, list[Job]] = {}
    for job in jobs:
        runs.setdefault(job.run_dir, []).append(job)
    return [_task(run_dir, scorings) for run_dir, scorings in runs.items()]


def _task(run_dir: Path, jobs: Sequence[Job]) -> RunTask:
    needed = itertools.chain.from_iterable(job.needs.items() for job in jobs)
    needs = {label: need for label, need in needed if need != run_dir and not final_checkpoint(need).is_file()}
    nodes = devices = 1
    if not is_trained(run_dir) and any(job.scores_model for job in jobs):
        nodes, devices = shape_of(jobs[0].config["trainer"])
    protocols = tuple(dict.fromkeys(job.protocol_hash for job in jobs))
    labels = tuple(itertools.chain.from_iterable(job.labels for job in jobs))
    return RunTask(run_dir, protocols, labels, needs, nodes, devices)


def group_by_shape(tasks: Sequence[RunTask], max_tasks: int) -> list[list[RunTask]]:
    """Group tasks into arrays: equal in shape and in what they wait for. An array comes after those that it waits for.

    All tasks of an array wait for the same runs, so that one that fails holds up nothing but what needs it.

    Args:
        tasks: in the order to run.
        max_tasks: most tasks of an array.
    """
    groups: dict[tuple[str, frozenset[Path]], list[RunTask]] = {}
    for task in tasks:
        groups.setdefault((task.shape, frozenset(task.needs.values())), []).append(task)
    given, placed = {task.run_dir for task in tasks}, set[Path]()
    arrays: list[list[RunTask]] = []
    while groups:
        ready = [key for key in groups if key[1] & given <= placed]
        assert ready, "a matrix has no circle of needs"
        for group in map(groups.pop, ready):
            arrays += [group[first : first + max_tasks] for first in range(0, len(group), max_tasks)]
            placed |= {task.run_dir for task in group}
    return arrays

"""Giving jobs to the scheduler. Ask twice and nothing is queued twice."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from experiments.ablate.plan.job import Job
from experiments.ablate.slurm import scheduler
from experiments.ablate.slurm.array import SUBMITTED, RunTask, TaskArray, write_note
from experiments.ablate.slurm.cluster import Cluster
from experiments.ablate.slurm.group import group_by_run, group_by_shape
from experiments.ablate.slurm.script import job_script
from experiments.ablate.slurm.state import Queue
from experiments.config.options import JudgeOptions
from experiments.runs.state import RUNNING, read_state
from mntp.io.files import atomic_write
from mntp.io.locks import claimed

FOLDER = "slurm"  # in the folder of the results


@dataclass
class Submission:
    """What was given to the scheduler.

    Attributes:
        jobs: each run's job, `<array id>_<index>`, by its folder.
        scripts: texts of the scripts, by file.
        kept: what is queued or running already, by label, with its job.
        refused: why a cell wasn't given to the scheduler, by label.
    """

    jobs: dict[Path, str] = field(default_factory=dict)
    scripts: dict[Path, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def submit(
    jobs: Sequence[Job], results: Path, cluster: Cluster, options: JudgeOptions, dry_run: bool = False
) -> Submission:
    """Give jobs that aren't done to the scheduler, but for those that it has already.

    Args:
        jobs: those to do. Unless it is a dry run, their runs' files are written already.
        results: folder of the results.
        cluster: where to.
        options: where judges and public checkpoints lie.
        dry_run: write nothing and ask nobody, only make the scripts.

    Raises:
        ValueError: the scheduler doesn't answer, or a run doesn't fit on the cluster.
    """
    done = Submission()
    tasks = group_by_run(jobs)
    settings = {task.shape: cluster.for_shape(task.nodes, task.devices) for task in tasks}
    if dry_run:
        for array, group in _named(tasks, results, cluster):
            done.scripts[array.with_suffix(".sbatch")] = _after(group) + _script(array, group, settings)
        return done
    folder = results / FOLDER
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with _only_one(folder):
        queue = Queue.of([*(task.run_dir for task in tasks), *(n for task in tasks for n in task.needs.values())])
        waiting = [task for task in tasks if _is_waiting(task, queue, done)]
        for array, group in _named(waiting, results, cluster):
            content = TaskArray(tuple(group), options, cluster.max_restarts)
            _submit_array(array, _script(array, group, settings), content, done, queue)
    return done


def _after(group: Sequence[RunTask]) -> str:
    return f"# after {', '.join(group[0].needs)}\n" if group[0].needs else ""


def _is_waiting(task: RunTask, queue: Queue, done: Submission) -> bool:
    """Whether a task is to be submitted; else `done` says why not."""
    if job := queue.active(task.run_dir):
        if set(task.protocols) <= queue.runs[task.run_dir].protocols:
            done.kept[task.label] = done.jobs[task.run_dir] = job
        else:
            reason = f"its run is in job {job} for other scorings; submit again when that is done"
            done.refused[task.label] = reason
        return False
    if read_state(task.run_dir, task.protocols[0]).state == RUNNING:
        done.kept[task.label] = "a process outside of the queue"
        return False
    return True


def _submit_array(array: Path, script: str, content: TaskArray, done: Submission, queue: Queue) -> None:
    """Submit one array; that it is refused stops what needs it, and nothing else."""
    group = content.tasks
    needed = {label: done.jobs.get(run) or queue.active(run) for label, run in group[0].needs.items()}
    if absent := [label for label, job in needed.items() if not job]:
        reason = f"needs {', '.join(absent)}, which is neither trained nor queued"
        done.refused |= {task.label: reason for task in group}
        return
    path = array.with_suffix(".sbatch")
    content.write(array)
    done.scripts[path] = script
    with atomic_write(path) as file:
        file.write(script)
    try:
        job = scheduler.submit(path, sorted(set(needed.values())))
    except ValueError as error:
        done.refused |= {task.label: str(error) for task in group}
        return
    for index, task in enumerate(group):
        done.jobs[task.run_dir] = f"{job}_{index}"
        note = {"job": done.jobs[task.run_dir], "array": str(array), "protocols": task.protocols, "shape": task.shape}
        write_note(task.run_dir, SUBMITTED, **note)


def _named(tasks: Sequence[RunTask], results: Path, cluster: Cluster) -> Iterator[tuple[Path, list[RunTask]]]:
    """Each array with the file that lists its tasks; the name is the jobs' name, too."""
    stamp = f"{time.strftime('%m%d-%H%M%S')}-{os.getpid()}"
    for number, group in enumerate(group_by_shape(tasks, cluster.max_array)):
        yield results / FOLDER / f"mntp-{stamp}-{number}-{group[0].shape}.json", group


def _script(array: Path, group: list[RunTask], settings: dict[str, Cluster]) -> str:
    return job_script(array, group, settings[group[0].shape], Path.cwd())


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one submission at a time look at the queue and add to it."""
    with claimed(folder / "lock") as mine:
        if not mine:
            raise ValueError(f"{folder}: another process is submitting cells just now; try again")
        yield

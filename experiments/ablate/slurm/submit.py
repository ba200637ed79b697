"""Giving planned cells to the scheduler. Ask twice and nothing is queued twice."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from experiments.ablate.plan.plan_file import PlannedCell
from experiments.ablate.slurm import scheduler
from experiments.ablate.slurm.array import SUBMITTED, RunTask, TaskArray
from experiments.ablate.slurm.cluster import Cluster
from experiments.ablate.slurm.group import arrays_of, tasks_of
from experiments.ablate.slurm.script import job_script
from experiments.ablate.slurm.state import Queue
from experiments.runs.state import RUNNING, read_state
from mntp.io.files import atomic_write
from mntp.io.json_lines import write_json
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
    cells: Sequence[PlannedCell], results: Path, cluster: Cluster, judges: Path, weights: Path, dry_run: bool = False
) -> Submission:
    """Give cells that aren't done to the scheduler, but for those that it has already.

    Args:
        cells: their runs' files are written.
        results: folder of the results.
        cluster: where to.
        judges: folder of cached judges.
        weights: folder of public checkpoints.
        dry_run: write nothing and ask nobody, only make the scripts.

    Raises:
        ValueError: the scheduler doesn't answer, or a run doesn't fit on the cluster.
    """
    done = Submission()
    tasks = tasks_of(cells)
    settings = {task.shape: cluster.for_shape(task.nodes, task.devices) for task in tasks}
    if dry_run:
        for array, group in _named(tasks, results, cluster):
            behind = f"# behind {', '.join(group[0].needs)}\n" if group[0].needs else ""
            done.scripts[array.with_suffix(".sbatch")] = behind + _script(array, group, settings)
        return done
    folder = results / FOLDER
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with _only_one(folder):
        queue = Queue.of([*(task.run_dir for task in tasks), *(n for task in tasks for n in task.needs.values())])
        waiting = []
        for task in tasks:
            job = queue.active(task.run_dir)
            if job and not set(task.protocols) <= queue.runs[task.run_dir].protocols:
                reason = f"its run is in job {job} for other scorings; submit again when that is done"
                done.refused[task.label] = reason
            elif job:
                done.kept[task.label] = job
                done.jobs[task.run_dir] = job
            elif read_state(task.run_dir, task.protocols[0]).state == RUNNING:
                done.kept[task.label] = "a process outside of the queue"
            else:
                waiting.append(task)
        for array, group in _named(waiting, results, cluster):
            content = TaskArray(tuple(group), judges, weights, cluster.max_restarts)
            _submit_array(array, _script(array, group, settings), content, done, queue)
    return done


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
        record = {"job": done.jobs[task.run_dir], "array": str(array), "protocols": task.protocols}
        write_json(task.run_dir / SUBMITTED, {**record, "shape": task.shape, "time": time.time()})


def _named(tasks: Sequence[RunTask], results: Path, cluster: Cluster) -> Iterator[tuple[Path, list[RunTask]]]:
    """Each array with the file that lists its tasks; the name is the jobs' name, too."""
    stamp = f"{time.strftime('%m%d-%H%M%S')}-{os.getpid()}"
    for number, group in enumerate(arrays_of(tasks, cluster.max_array)):
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

"""The text of a job script: one array of tasks that are equal in shape."""

import shlex
import sys
from pathlib import Path

from experiments.ablate.slurm.array import RunTask, task_log
from experiments.ablate.slurm.cluster import Cluster

# srun doesn't take the number of CPUs from the allocation (since SLURM 22.05).
_BODY = """\
trap : TERM USR1  # the tasks take the signals; this script outlives them and decides what follows
cd {cwd} || exit 1
{setup}srun --kill-on-bad-exit=1 --wait=0 --export=ALL --cpus-per-task={cpus} \\
  {python} -m experiments.ablate.slurm.task {array} "$SLURM_ARRAY_TASK_ID"
code=$?
if {python} -m experiments.ablate.slurm.requeue {array} "$SLURM_ARRAY_TASK_ID" "$code"; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}" && sleep 300  # until it takes effect
fi
exit "$code"
"""


def job_script(array: Path, tasks: list[RunTask], cluster: Cluster, folder: Path) -> str:
    """Return the script of a job array.

    Args:
        array: the file that lists the tasks.
        tasks: its tasks, of one shape.
        cluster: what holds for the shape.
        folder: where the tasks run: that of the `runs` folder.
    """
    one = tasks[0]
    throttle = f"%{cluster.throttle}" if cluster.throttle else ""
    options = [
        f"--job-name={array.stem}",
        f"--array=0-{len(tasks) - 1}{throttle}",
        f"--nodes={one.nodes}",
        f"--ntasks-per-node={one.devices}",
        f"--cpus-per-task={cluster.cpus_per_task}",
        *([cluster.gpus.replace("{}", str(one.devices))] if cluster.gpus else []),
        f"--time={cluster.time}",
        *(f"--{name}={getattr(cluster, name)}" for name in ("partition", "account", "qos", "constraint")),
        f"--signal=USR1@{cluster.signal_seconds}",
        "--requeue",
        "--open-mode=append",
        "--kill-on-invalid-dep=yes",
        f"--output={task_log(array, '%A_%a')}",
        *cluster.options,
    ]
    python = f"{cluster.launcher} {shlex.quote(cluster.python or sys.executable)}".strip()
    setup = f"{cluster.setup.rstrip()}\n" if cluster.setup else ""
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options if not option.endswith("="))]
    body = _BODY.format(
        cwd=shlex.quote(str(folder)),
        setup=setup,
        python=python,
        array=shlex.quote(str(array)),
        cpus=cluster.cpus_per_task,
    )
    return "\n".join((*lines, body))

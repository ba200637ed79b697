"""What follows after a task of a job array: `python -m experiments.ablate.slurm.requeue ARRAY.json INDEX EXIT_CODE`.

Exits with 0 where the task is to be put into the queue again: it was asked to stop, or killed. What ended by an error
of its own would only meet it again; that is written down in the run's folder, so that it is known when the scheduler
has forgotten the job.
"""

import os
import sys
from pathlib import Path

from experiments.ablate.results.log_tail import last_lines
from experiments.ablate.slurm.array import ATTEMPT, RunTask, TaskArray, read_note, task_log
from experiments.ablate.slurm.scheduler import state_of
from experiments.ablate.slurm.task import record_failure
from experiments.runs.stop import EXIT_STOPPED

KILLED = 128  # and above: 128 + the number of a signal


def goes_on(task: RunTask, code: int, restarts: int, max_restarts: int, log: Path) -> bool:
    """Return whether a task should be started again; else its unfinished scorings say why not.

    Args:
        task: what has ended.
        code: exit code of srun, the highest of all ranks'.
        restarts: how often it was started again so far.
        max_restarts: how often it may be.
        log: the task's log, for a failure's last lines.
    """
    unfinished = task.unfinished()
    if not unfinished or read_note(task.run_dir, ATTEMPT).get("outcome") == "held":
        return False
    # One rank's own error ends the others by a signal: the word that it left counts, not the code.
    if all((folder / "failure.json").is_file() for folder in unfinished):
        return False
    ending = "ended without writing metrics.json" if code == 0 else f"exit code {code}"
    if code == EXIT_STOPPED or code > KILLED:
        if restarts < max_restarts:
            return True
        ending = f"{ending}, and it was started again {restarts} times already (max_restarts)"
    record_failure(task, "\n".join((ending, *last_lines(log))))
    return False


def main(path: Path, index: int, code: int) -> int:
    """Return 0 where the task is to be requeued, else 1."""
    array = TaskArray.read(path)
    job, array_job = os.environ["SLURM_JOB_ID"], os.environ["SLURM_ARRAY_JOB_ID"]
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    log = task_log(path, f"{array_job}_{index}")
    # A job that isn't running any more was cancelled, or the scheduler has put it into the queue itself.
    if state_of(job) != "RUNNING":
        return 1
    return 0 if goes_on(array.tasks[index], code, restarts, array.max_restarts, log) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

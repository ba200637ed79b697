"""One task of a job array, started by srun on every device.

Called as `python -m experiments.ablate.slurm.task ARRAY.json INDEX`.

It listens to signals before the slow imports, compares what it was given with what the run wants, and leaves word in
the run's folder of where it runs and why it failed; `experiments.ablate.slurm.requeue` reads that and decides what
follows.
"""

import os
import re
import sys
from pathlib import Path

import yaml

from experiments.ablate.slurm.array import ATTEMPT, RunTask, TaskArray, write_note
from experiments.config.errors import user_errors
from experiments.config.options import JudgeOptions
from experiments.runs.launch import check_launch, global_rank
from experiments.runs.record import EXIT_HELD, is_trained, write_failure
from experiments.runs.state import untrained_needs
from experiments.runs.stop import EXIT_STOPPED, StopRequest

LOCK_PATIENCE_SECONDS = 90.0  # a lost node's lock outlives it for as long as the file server's lease
# What the other ranks' libraries say when one is gone.
_PEER_LOST = re.compile(r"closed by peer|reset by peer|broken pipe|timed out|gloo|nccl|tcpstore|socket", re.IGNORECASE)


def main(path: Path, index: int, stop: StopRequest) -> None:
    """Run one task.

    Raises:
        ValueError: the allocation doesn't fit the run, or a run that it needs isn't trained.
        SystemExit: asked to stop, or another rank is lost (75), or another process holds the run (3).
    """
    array = TaskArray.read(path)
    task = array.tasks[index]
    if global_rank() == 0:
        _begin(task)
    try:
        _check(task)
        _run(task, array.options, stop)
    except SystemExit as error:
        if global_rank() == 0 and error.code == EXIT_HELD:
            _record(task, outcome="held")
        raise
    except BaseException as error:
        if _lost_a_peer(task, error):
            print(f"rank {global_rank()} lost another one: {error}", file=sys.stderr)  # noqa: T201
            raise SystemExit(EXIT_STOPPED) from error
        kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
        record_failure(task, kind + " ".join(str(error).split()))
        raise


def _run(task: RunTask, options: JudgeOptions, stop: StopRequest) -> None:
    from experiments.runs.run import run  # torch: seconds, in which signals must not be lost

    restarted = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    run(task.run_dir, ",".join(task.protocols), options, stop, LOCK_PATIENCE_SECONDS if restarted else 0.0)


def _lost_a_peer(task: RunTask, error: BaseException) -> bool:
    several = task.nodes * task.devices > 1
    return several and isinstance(error, RuntimeError) and bool(_PEER_LOST.search(str(error)))


def record_failure(task: RunTask, reason: str) -> None:
    """Say in each unfinished scoring's folder why it failed, unless it says so itself."""
    for folder in task.unfinished():
        if not (folder / "failure.json").is_file():
            write_failure(folder, reason)


def _begin(task: RunTask) -> None:
    """Forget the last attempt's failures, and say where this one runs."""
    for folder in task.unfinished():
        (folder / "failure.json").unlink(missing_ok=True)
    _record(task, outcome="")


def _record(task: RunTask, outcome: str) -> None:
    environ = os.environ
    array, index = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    write_note(
        task.run_dir,
        ATTEMPT,
        job=f"{array}_{index}" if array else environ.get("SLURM_JOB_ID", ""),
        restarts=int(environ.get("SLURM_RESTART_COUNT") or 0),
        nodes=environ.get("SLURM_JOB_NODELIST", ""),
        outcome=outcome,
    )


def _check(task: RunTask) -> None:
    if missing := untrained_needs(task.needs):
        raise ValueError(missing)
    if not is_trained(task.run_dir) and task.nodes * task.devices > 1:
        config = yaml.safe_load((task.run_dir / "config.yaml").read_text(encoding="utf-8"))
        check_launch(config["trainer"])


if __name__ == "__main__":
    request = StopRequest()
    request.listen()
    with user_errors():
        main(Path(sys.argv[1]), int(sys.argv[2]), request)

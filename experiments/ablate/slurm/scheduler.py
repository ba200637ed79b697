"""Asking SLURM, and giving it jobs: squeue first, sacct for what squeue has forgotten, sbatch. Nothing else is run."""

import re
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

# States of a job that will still do something by itself.
WAITING = frozenset(
    ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
)
ACTIVE = WAITING | {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
SECONDS = 60  # a busy controller answers late


@dataclass(frozen=True)
class JobInfo:
    """What the scheduler knows of a job.

    Attributes:
        state: as SLURM calls it, `RUNNING`.
        reason: why it waits, or why it ended so; may be empty.
        nodes: where it runs or ran.
    """

    state: str
    reason: str = ""
    nodes: str = ""

    @property
    def active(self) -> bool:
        """Whether it will still do something by itself."""
        return self.state in ACTIVE


def ask(jobs: Collection[str]) -> dict[str, JobInfo]:
    """Return what the scheduler knows of jobs, by `<array id>_<index>`; one that it has forgotten is left out.

    Raises:
        ValueError: there is no scheduler here, or it doesn't answer.
    """
    if not jobs:
        return {}
    # By user and not by id: one unknown id among them is an error to squeue.
    known = _parse(_run(["squeue", "--me", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%N"]))
    found = {job: known[job] for job in jobs if job in known}
    if forgotten := [job for job in jobs if job not in known]:
        found |= _from_accounting(forgotten)
    return found


def state_of(job: str) -> str:
    """Return the state of one job by its plain id, empty if the scheduler doesn't know it."""
    return _run(["squeue", "-h", "-j", job, "-o", "%T"]).strip()


def submit(script: Path, dependencies: Sequence[str] = ()) -> str:
    """Give a script to the scheduler, to start when all jobs that it depends on have ended well.

    Returns:
        The job's id.

    Raises:
        ValueError: it was refused; says why.
    """
    after = [f"--dependency=afterok:{':'.join(dependencies)}"] if dependencies else []
    return _run(["sbatch", "--parsable", *after, str(script)]).strip().partition(";")[0]


def _from_accounting(jobs: Sequence[str]) -> dict[str, JobInfo]:
    """What sacct knows; nothing where there is no accounting."""
    words = ["sacct", "-n", "-P", "-X", "-j", ",".join(jobs), "-o", "JobID,State,Reason,NodeList"]
    try:
        known = _parse(_run(words))
    except ValueError:
        return {}
    return {job: known[job] for job in jobs if job in known}


def _parse(text: str) -> dict[str, JobInfo]:
    jobs = {}
    for line in text.splitlines():
        job, state, reason, nodes = [*line.split("|"), "", "", ""][:4]
        if not state:
            continue
        state = state.split()[0].rstrip("+")  # sacct: "CANCELLED by 0"
        jobs[job] = JobInfo(state, "" if reason == "None" else reason, re.sub(r"^\(.*\)$|^None assigned$", "", nodes))
    return jobs


def _run(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS)
    except FileNotFoundError:
        raise ValueError(f"{words[0]}: no such command; is this a machine of the cluster?") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{words[0]}: no answer within {SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()] or [f"exit code {error.returncode}"]
        raise ValueError(f"{words[0]}: {' '.join(' '.join(lines).split())}") from None
    return done.stdout

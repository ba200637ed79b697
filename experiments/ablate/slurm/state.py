"""What the scheduler says of runs, beside what their folders say."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.ablate.results.log_tail import last_lines
from experiments.ablate.slurm import scheduler
from experiments.ablate.slurm.array import ATTEMPT, SUBMITTED, task_log
from experiments.ablate.slurm.scheduler import WAITING, JobInfo
from experiments.runs.state import CANCELLED, DONE, FAILED, INTERRUPTED, QUEUED, RUNNING, CellState
from mntp.io.json_lines import read_json

# Reasons for which a job waits until someone changes it.
_FOR_EVER = {
    *("PartitionConfig", "BadConstraints", "JobHeldUser", "JobHeldAdmin"),
    *("DependencyNeverSatisfied", "AccountNotAllowed"),
}


@dataclass(frozen=True)
class RunJob:
    """The job that a run was last given to.

    Attributes:
        job: `<array id>_<index>`.
        protocols: hashes of the scorings that it does.
        log: its log.
        restarts: how often it was started again.
        nodes: where it runs or ran last; empty if it never did.
        info: what the scheduler knows; None if it has forgotten it, or wasn't asked.
    """

    job: str
    protocols: frozenset[str]
    log: Path
    restarts: int = 0
    nodes: str = ""
    info: JobInfo | None = None


@dataclass(frozen=True)
class Queue:
    """The jobs of runs.

    Attributes:
        runs: each run's job, by its folder; runs that were never submitted are left out.
        silence: why the scheduler couldn't be asked; empty if it answered.
    """

    runs: dict[Path, RunJob] = field(default_factory=dict)
    silence: str = ""

    @classmethod
    def of(cls, run_dirs: Iterable[Path], strict: bool = True) -> "Queue":
        """Read the runs' records, and ask the scheduler once for all of them; not where none was ever submitted.

        Args:
            run_dirs: folders of runs.
            strict: False if an onlooker can do without the scheduler.

        Raises:
            ValueError: the scheduler doesn't answer, and `strict`.
        """
        records = {run_dir: _record(run_dir) for run_dir in dict.fromkeys(run_dirs)}
        jobs = {record["job"] for record in records.values() if record}
        try:
            known, silence = scheduler.ask(jobs), ""
        except ValueError as error:
            if strict:
                raise
            known, silence = {}, str(error)
        return cls({r: _run_job(r, record, known) for r, record in records.items() if record}, silence)

    def active(self, run_dir: Path) -> str:
        """Return the job that a run waits or runs in, empty if there is none."""
        job = self.runs.get(run_dir)
        return job.job if job and job.info and job.info.active else ""

    def job(self, run_dir: Path, protocol_hash: str) -> RunJob | None:
        """Return the job that a scoring of a run was last given to, None if it never was."""
        job = self.runs.get(run_dir)
        return job if job and protocol_hash in job.protocols else None

    def state(self, run_dir: Path, protocol_hash: str, folder_state: CellState) -> CellState:
        """Return the state of a scoring, given what its folder says.

        What is finished is finished; else a job that is alive decides, since locks and clocks of other machines may
        not be seen here; a job that has ended decides over a folder that doesn't know of it.
        """
        job = self.job(run_dir, protocol_hash)
        if folder_state.state == DONE or job is None or job.info is None:
            return folder_state
        state, info = folder_state.state, job.info
        if info.state in WAITING:
            stuck = ": it never starts like this" if info.reason in _FOR_EVER else ""
            place = f"; it goes on from {_place(folder_state)}" if state == INTERRUPTED else ""
            return _with(folder_state, QUEUED, f"waits for {info.reason or 'the scheduler'}{stuck}{place}")
        if info.active:
            return _with(folder_state, RUNNING, _place(folder_state) if state in (RUNNING, INTERRUPTED) else "starting")
        if state == RUNNING:  # a process outside of the queue
            return folder_state
        if state == FAILED:  # the task said why
            lines = [] if "\n" in folder_state.reason else last_lines(job.log)
            return _with(folder_state, FAILED, "\n".join((folder_state.reason, *lines)))
        if info.state == "CANCELLED":
            why = f" ({info.reason})" if info.reason else ""
            return _with(folder_state, CANCELLED, f"its job was cancelled{why}")
        ending = "\n".join((f"its job ended as {info.state}, without a result", *last_lines(job.log)))
        return _with(folder_state, FAILED, ending)


def _place(state: CellState) -> str:
    """How far it is, as in `training 120/400`."""
    return state.reason.partition(";")[0]


def _with(state: CellState, name: str, reason: str) -> CellState:
    return dataclasses.replace(state, state=name, reason=reason)


def _record(run_dir: Path) -> dict[str, Any]:
    try:
        return read_json(run_dir / SUBMITTED)
    except ValueError:  # damaged: the folder's own state says all that is known
        return {}


def _run_job(run_dir: Path, record: dict[str, Any], known: dict[str, JobInfo]) -> RunJob:
    job = str(record["job"])
    log, info = task_log(Path(record["array"]), job), known.get(job)
    try:
        attempt = read_json(run_dir / ATTEMPT)
    except ValueError:
        attempt = {}
    if attempt.get("job") != job:  # an earlier submission's
        attempt = {}
    nodes = attempt.get("nodes") or (info.nodes if info else "")
    return RunJob(job, frozenset(record["protocols"]), log, int(attempt.get("restarts", 0)), str(nodes), info)

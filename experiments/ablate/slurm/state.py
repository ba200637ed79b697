"""What the scheduler says of runs, beside what their folders say."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.ablate.results.log_tail import last_lines
from experiments.ablate.slurm import scheduler
from experiments.ablate.slurm.array import ATTEMPT, SUBMITTED, read_note, task_log
from experiments.ablate.slurm.scheduler import WAITING, JobInfo
from experiments.runs.state import CANCELLED, DONE, FAILED, INTERRUPTED, QUEUED, RUNNING, CellState

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
        records = {run_dir: read_note(run_dir, SUBMITTED) for run_dir in dict.fromkeys(run_dirs)}
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

        Precedence: a finished scoring; then a live job, because locks and clocks of other machines may not be seen
        here; then a dead job over a folder that recorded no end.
        """
        job = self.job(run_dir, protocol_hash)
        if folder_state.state == DONE or job is None or job.info is None:
            return folder_state
        if job.info.active:
            return _alive(folder_state, job.info)
        return _ended(folder_state, job.info, job.log)


def _alive(state: CellState, info: JobInfo) -> CellState:
    """The state of a scoring whose job waits or runs."""
    if info.state in WAITING:
        stuck = ": it never starts like this" if info.reason in _FOR_EVER else ""
        place = f"; it goes on from {_place(state)}" if state.state == INTERRUPTED else ""
        return _with(state, QUEUED, f"waits for {info.reason or 'the scheduler'}{stuck}{place}")
    return _with(state, RUNNING, _place(state) if state.state in (RUNNING, INTERRUPTED) else "starting")


def _ended(state: CellState, info: JobInfo, log: Path) -> CellState:
    """The state of a scoring whose job has ended without a result."""
    if state.state == RUNNING:  # a process outside of the queue
        return state
    if state.state == FAILED:  # the task said why
        lines = [] if "\n" in state.reason else last_lines(log)
        return _with(state, FAILED, "\n".join((state.reason, *lines)))
    if info.state == "CANCELLED":
        why = f" ({info.reason})" if info.reason else ""
        return _with(state, CANCELLED, f"its job was cancelled{why}")
    return _with(state, FAILED, "\n".join((f"its job ended as {info.state}, without a result", *last_lines(log))))


def _place(state: CellState) -> str:
    """How far it is, as in `training 120/400`."""
    return state.reason.partition(";")[0]


def _with(state: CellState, name: str, reason: str) -> CellState:
    return dataclasses.replace(state, state=name, reason=reason)


def _run_job(run_dir: Path, record: dict[str, Any], known: dict[str, JobInfo]) -> RunJob:
    job = str(record["job"])
    log, info = task_log(Path(record["array"]), job), known.get(job)
    attempt = read_note(run_dir, ATTEMPT)
    if attempt.get("job") != job:  # an earlier submission's
        attempt = {}
    nodes = attempt.get("nodes") or (info.nodes if info else "")
    return RunJob(job, frozenset(record["protocols"]), log, int(attempt.get("restarts", 0)), str(nodes), info)

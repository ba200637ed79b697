"""Run jobs here, in order, one process each: what is done is skipped, one failure never stops another.

Each job is `python -m experiments.run RUN_DIR --protocol HASH`: it trains, or continues, or skips what is trained,
then samples and scores. This module only writes its configuration, watches its files and records a failure.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.ablate.plan import Job
from experiments.ablate.status import (
    DONE,
    FAILED,
    INTERRUPTED,
    NOT_RUN,
    RUNNING,
    STYLES,
    eval_folder,
    read_state,
    seconds,
    untrained_needs,
)
from experiments.run_record import EXIT_HELD, read_json
from mntp.files import atomic_write

GRACE_SECONDS = 20.0  # between asking a child to end and ending it
POLL_SECONDS = 0.5
PLAIN_SECONDS = 15.0  # at most this long between two lines where there is no terminal
TAIL_LINES = 8
TAIL_BYTES = 16_384


@dataclass
class JobView:
    """What is shown of a job.

    Attributes:
        job: the job.
        state: one of the states of `status`.
        progress: the newest `progress.json`.
        elapsed: seconds since it was started here; None if it wasn't.
        remaining: seconds that its present phase still needs, at the speed seen so far; None if not known.
        note: why it failed, or who holds it.
    """

    job: Job
    state: str
    progress: dict[str, Any]
    elapsed: float | None = None
    remaining: float | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """The labels of all cells that this job answers: `3G = 8C`."""
        return " = ".join(self.job.labels)

    @property
    def place(self) -> str:
        """Phase and step, as in `training 120/400`."""
        if self.state not in (RUNNING, INTERRUPTED) or "phase" not in self.progress:
            return ""
        step, most = self.progress.get("step"), self.progress.get("max_steps")
        return f"{self.progress['phase']} {step}/{most}" if step is not None else str(self.progress["phase"])


class InterruptedRunError(Exception):
    """The user, or the system, asked the runner to stop; `views` say how far it came.

    Attributes:
        views: all jobs.
        exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, views: list[JobView], exit_code: int) -> None:
        super().__init__(f"interrupted: {sum(v.state == DONE for v in views)} of {len(views)} are done and kept")
        self.views = views
        self.exit_code = exit_code


def run_command(judges: Path, weights: Path) -> Callable[[Job], list[str]]:
    """Return how a job is started: the command of its process."""

    def command(job: Job) -> list[str]:
        run = [sys.executable, "-m", "experiments.run", str(job.run_dir)]
        return [*run, "--protocol", job.protocol_hash, "--judges", str(judges), "--weights", str(weights)]

    return command


def run_jobs(
    jobs: Sequence[Job],
    command: Callable[[Job], list[str]],
    console: Console,
    poll_seconds: float = POLL_SECONDS,
) -> list[JobView]:
    """Run the jobs that aren't done, one after another; one that needs a run which isn't trained is not started.

    Args:
        jobs: in the order to run.
        command: gives a job's command line.
        console: where progress is shown: a live table on a terminal, else a line per change and each 15 s.
        poll_seconds: how often files are looked at.

    Returns:
        All jobs with their final states; a failed one carries the last lines of its log.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM; the running child was ended first.
    """
    views = [_first_view(job) for job in jobs]
    with _sigterm_as_interrupt() as exit_code, _display(console, views) as show:
        try:
            for view in views:
                if view.state == DONE:
                    continue
                if untrained := untrained_needs(view.job.needs):
                    view.state, view.note = NOT_RUN, untrained
                    show()
                else:
                    _run_one(view, command(view.job), show, poll_seconds)
        except KeyboardInterrupt:
            raise InterruptedRunError(views, exit_code[0]) from None
    return views


def write_run_files(job: Job) -> None:
    """Write the two files that a job's process reads: the run's resolved config and the scoring's protocol.

    The config of an existing run can only differ in keys that don't change its results (a path, the number of
    workers): the present ones are the right ones.
    """
    scoring = eval_folder(job.run_dir, job.protocol_hash)
    scoring.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_dump(job.config, sort_keys=False, allow_unicode=True)
    _write_if_changed(job.run_dir / "config.yaml", config)
    _write_if_changed(scoring / "protocol.json", json.dumps(job.protocol, indent=1, sort_keys=True) + "\n")


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with atomic_write(path) as file:
            file.write(text)


def _first_view(job: Job) -> JobView:
    state = read_state(job.run_dir, job.protocol_hash)
    return JobView(job, state.state, state.progress, note=state.reason if state.state == FAILED else "")


def _run_one(view: JobView, command: list[str], show: Callable[[], None], poll_seconds: float) -> None:
    """Run one job to its end and set its final state; only an interrupt leaves by an exception."""
    run_dir, failure = view.job.run_dir, eval_folder(view.job.run_dir, view.job.protocol_hash) / "failure.json"
    view.state, view.progress, view.note, started = RUNNING, {}, "", time.monotonic()
    show()
    try:
        write_run_files(view.job)
        failure.unlink(missing_ok=True)
        with (run_dir / "run.log").open("ab") as log:
            offset = log.tell()
            code = _watch(view, command, log.fileno(), show, poll_seconds)
    except (OSError, ValueError) as error:  # a full disk, say; the next job may lie elsewhere, or need less
        view.state, view.note = FAILED, str(error)
        show()
        return
    view.elapsed, view.remaining = time.monotonic() - started, None
    lines = _last_lines(run_dir / "run.log", offset)
    state = read_state(run_dir, view.job.protocol_hash)
    if code == 0 and state.state == DONE:
        view.state, view.note = DONE, ""
    elif code == EXIT_HELD:
        view.state, view.note = RUNNING, lines[-1] if lines else "another process holds this run"
    else:
        view.state, view.note = FAILED, "\n".join((_ending(code), *lines))
        # If even this can't be written, the cell shows as interrupted: still not as done.
        with suppress(OSError), atomic_write(failure) as file:
            json.dump({"reason": view.note, "exit_code": code, "time": time.time()}, file)
    show()


def _watch(view: JobView, command: list[str], log: int, show: Callable[[], None], poll_seconds: float) -> int:
    """Start the process, show its progress until it ends, and return its exit code (negative: its signal)."""
    launched, started, pace = time.time(), time.monotonic(), _Pace()
    # Its own session: a terminal's Ctrl-C reaches the runner only, which then ends the child in good order.
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(timeout=poll_seconds)
            progress = read_json(view.job.run_dir / "progress.json")
            if float(progress.get("time", 0.0)) >= launched:  # not an earlier attempt's
                view.progress = progress
                view.remaining = pace.remaining(progress)
            view.elapsed = time.monotonic() - started
            show()
    except BaseException:
        view.state, view.note = INTERRUPTED, ""
        _end(child)
        raise


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the child and its workers to end, then end them; a second Ctrl-C shortens the wait."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        child.wait(timeout=GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class _Pace:
    """Seconds left of a phase, at the speed since it was first seen."""

    def __init__(self) -> None:
        self.phase, self.step, self.time = "", 0, 0.0

    def remaining(self, progress: dict[str, Any]) -> float | None:
        phase, step, most = progress.get("phase"), progress.get("step"), progress.get("max_steps")
        if not isinstance(step, int) or not isinstance(most, int):
            return None
        now = float(progress["time"])
        if phase != self.phase or step < self.step:
            self.phase, self.step, self.time = str(phase), step, now
        if step == self.step or now <= self.time:
            return None
        return (most - step) * (now - self.time) / (step - self.step)


def _last_lines(path: Path, offset: int) -> list[str]:
    """The last lines that were logged since `offset`; only the file's end is read."""
    with path.open("rb") as file:
        file.seek(max(offset, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-TAIL_LINES:]


def _ending(code: int) -> str:
    if code == 0:
        return "ended without writing metrics.json"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextmanager
def _sigterm_as_interrupt() -> Iterator[list[int]]:
    """Treat SIGTERM like Ctrl-C; yields a one-element list with the exit code that fits."""
    exit_code = [128 + signal.SIGINT]

    def on_sigterm(number: int, frame: object) -> None:
        exit_code[0] = 128 + number
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield exit_code
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _display(console: Console, views: list[JobView]) -> Iterator[Callable[[], None]]:
    """Yield what redraws: a live table on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield _PlainLines(console, views).show
        return
    with Live(progress_table(views), console=console, auto_refresh=False) as live:
        yield lambda: live.update(progress_table(views), refresh=True)


def progress_table(views: Sequence[JobView]) -> Table:
    """Return the live table: each job with state, progress, loss, elapsed time and what is left of its phase."""
    table = Table(caption=_caption(views), caption_justify="left")
    for name in ("cell", "run", "state", "progress", "loss", "elapsed", "left", "note"):
        table.add_column(name, justify="right" if name in ("loss", "elapsed", "left") else "left", overflow="fold")
    for view in views:
        table.add_row(
            Text(view.label),
            Text(view.job.run_dir.name),
            Text(view.state, style=STYLES[view.state]),
            Text(view.place),
            _loss(view),
            seconds(view.elapsed),
            seconds(view.remaining),
            Text(view.note.rpartition("\n")[2]),
        )
    return table


def _caption(views: Sequence[JobView]) -> str:
    """How many are done, and what the waiting trainings need if they take as long as those seen here."""
    done, failed = (sum(view.state == state for view in views) for state in (DONE, FAILED))
    seen = [view.elapsed for view in views if view.state == DONE and view.job.trains and view.elapsed is not None]
    waiting = sum(view.job.trains and view.state in (NOT_RUN, INTERRUPTED) for view in views)
    text = f"{done} of {len(views)} done" + (f", {failed} failed" if failed else "")
    if not (seen and waiting):
        return text
    return f"{text}; the {waiting} waiting need about {seconds(waiting * sum(seen) / len(seen))}"


def _loss(view: JobView) -> str:
    loss = view.progress.get("loss")
    return f"{loss:.4f}" if isinstance(loss, int | float) else ""


class _PlainLines:
    """One line on each change of state or phase, and at most every 15 s, where there is no terminal."""

    def __init__(self, console: Console, views: list[JobView]) -> None:
        self.console, self.views, self.last = console, views, 0.0
        self.shown = {id(view): (view.state, None) for view in views}
        kept = sum(view.state == DONE for view in views)
        console.print(f"{len(views)} to do, {kept} of them done already", highlight=False)

    def show(self) -> None:
        due = time.monotonic() - self.last >= PLAIN_SECONDS
        for view in self.views:
            key = (view.state, view.progress.get("phase"))
            changed = key != self.shown[id(view)]
            if changed or (due and view.state == RUNNING and view.elapsed is not None):
                self.shown[id(view)], self.last = key, time.monotonic()
                self.console.print(self._line(view), highlight=False, markup=False, soft_wrap=True)

    def _line(self, view: JobView) -> str:
        parts = [view.state, view.place, f"loss {_loss(view)}" if view.state == RUNNING and _loss(view) else ""]
        parts.append(seconds(view.elapsed))
        parts.append(f"{seconds(view.remaining)} left" if view.remaining is not None else "")
        line = f"[{view.label}] " + ", ".join(part for part in parts if part)
        return "\n    ".join((line, *view.note.splitlines())) if view.note else line

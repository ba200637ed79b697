"""Run jobs here, one process each, in order or several at a time: what is done is skipped, one failure stops no other.

Each job is `python -m experiments.runs.run RUN_DIR --protocol HASH`: it trains, or continues, or skips what is trained,
then samples and scores. This module only writes its configuration, watches its files and records a failure.
"""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from rich.console import Console

from experiments.ablate.local.display import JobView, display
from experiments.ablate.local.gpus import GpuPool
from experiments.ablate.local.process import Child
from experiments.ablate.plan.job import Job
from experiments.ablate.results.log_tail import last_lines
from experiments.config.options import JudgeOptions
from experiments.runs.record import EXIT_HELD, final_checkpoint, write_failure
from experiments.runs.state import DONE, FAILED, INTERRUPTED, NOT_RUN, RUNNING, read_state, untrained_needs
from mntp.io.files import atomic_write

POLL_SECONDS = 0.5


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


def run_command(options: JudgeOptions) -> Callable[[Job], list[str]]:
    """Return how a job is started: the command of its process."""

    def command(job: Job) -> list[str]:
        run = [sys.executable, "-m", "experiments.runs.run", str(job.run_dir)]
        places = ["--judges", str(options.judges), "--weights", str(options.weights)]
        return [*run, "--protocol", job.protocol_hash, *places]

    return command


def run_jobs(
    jobs: Sequence[Job],
    command: Callable[[Job], list[str]],
    console: Console,
    poll_seconds: float = POLL_SECONDS,
    parallel: int = 1,
) -> list[JobView]:
    """Run the jobs that aren't done; one that needs a run which isn't trained waits for it, or is not started.

    Args:
        jobs: in the order to run.
        command: gives a job's command line.
        console: where progress is shown: a live table on a terminal, else a line per change and each 15 s.
        poll_seconds: how often files are looked at.
        parallel: jobs at a time; each then has GPUs of its own, as far as there are enough.

    Returns:
        All jobs with their final states; a failed one carries the last lines of its log.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM; the running children were ended first.
        ValueError: `parallel` is below 1.
    """
    if parallel < 1:
        raise ValueError(f"parallel: expected at least 1 job at a time, got {parallel}")
    views = [_first_view(job) for job in jobs]
    pool = GpuPool.visible() if parallel > 1 else GpuPool(())
    with _sigterm_as_interrupt() as exit_code, display(console, views) as show:
        runner = _Runner(views, command, show, pool)
        try:
            while runner.start(parallel):
                runner.watch(poll_seconds)
        except KeyboardInterrupt:
            raise InterruptedRunError(views, exit_code[0]) from None
        finally:
            runner.end()
    return views


class _Runner:
    """The jobs that wait and those that run."""

    def __init__(
        self, views: list[JobView], command: Callable[[Job], list[str]], show: Callable[[], None], pool: GpuPool
    ) -> None:
        self._command, self._show, self._pool = command, show, pool
        self._waiting = [view for view in views if view.state != DONE]
        self._running: list[tuple[JobView, Child]] = []

    def start(self, parallel: int) -> bool:
        """Start what may start now, up to `parallel` in all; return whether any is running."""
        for view in list(self._waiting):
            if len(self._running) >= parallel:
                break
            if self._must_wait(view):
                continue
            self._waiting.remove(view)
            if untrained := untrained_needs(view.job.needs):
                view.state, view.note = NOT_RUN, untrained
                self._show()
            else:
                self._start(view)
        # Whatever waits, waits for one that runs; but a start that failed at once may have made way for another.
        return bool(self._running) or (bool(self._waiting) and self.start(parallel))

    def watch(self, poll_seconds: float) -> None:
        """Look at the running jobs once, for at most `poll_seconds`."""
        self._running[0][1].wait(poll_seconds)
        for view, child in list(self._running):
            view.elapsed = child.elapsed
            code = child.wait(0)
            if code is None:
                if progress := child.progress():
                    view.progress, view.remaining = progress, child.remaining(progress)
                continue
            self._running.remove((view, child))
            self._pool.give_back(child.gpus)
            view.remaining = None
            _conclude(view, child, code)
        self._show()

    def end(self) -> None:
        """End what still runs, in good order."""
        for view, child in self._running:
            view.state, view.note = INTERRUPTED, ""
            child.ask_to_end()
        for _, child in self._running:
            child.end()
        self._running = []

    def _must_wait(self, view: JobView) -> bool:
        """A run is one process's at a time; and what will be trained is waited for."""
        running = {other.job.run_dir for other, _ in self._running}
        coming = running | {other.job.run_dir for other in self._waiting if other is not view}
        missing = {run for run in view.job.needs.values() if not final_checkpoint(run).is_file()}
        return view.job.run_dir in running or bool(missing & coming - {view.job.run_dir})

    def _start(self, view: JobView) -> None:
        view.state, view.progress, view.note = RUNNING, {}, ""
        self._show()
        try:
            write_run_files(view.job)
            (view.job.scoring / "failure.json").unlink(missing_ok=True)
            gpus = self._pool.take(view.job.num_devices)
            self._running.append((view, Child(self._command(view.job), view.job.run_dir, gpus)))
        except (OSError, ValueError) as error:  # a full disk, say; the next job may lie elsewhere, or need less
            view.state, view.note = FAILED, str(error)
            self._show()


def _conclude(view: JobView, child: Child, code: int) -> None:
    """Set the final state of a job that has ended."""
    lines = last_lines(view.job.run_dir / "run.log", child.offset)
    state = read_state(view.job.run_dir, view.job.protocol_hash)
    if code == 0 and state.state == DONE:
        view.state, view.note = DONE, ""
    elif code == EXIT_HELD:
        view.state, view.note = RUNNING, lines[-1] if lines else "another process holds this run"
    else:
        view.state, view.note = FAILED, "\n".join((_ending(code), *lines))
        # If even this can't be written, the cell shows as interrupted: still not as done.
        with suppress(OSError):
            write_failure(view.job.scoring, view.note, exit_code=code)


def write_run_files(job: Job) -> None:
    """Write the two files that a job's process reads: the run's resolved config and the scoring's protocol.

    The config of an existing run can only differ in keys that don't change its results (a path, the number of
    workers): the present ones are the right ones.
    """
    job.scoring.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_dump(job.config, sort_keys=False, allow_unicode=True)
    _write_if_changed(job.run_dir / "config.yaml", config)
    _write_if_changed(job.scoring / "protocol.json", json.dumps(job.protocol, indent=1, sort_keys=True) + "\n")


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with atomic_write(path) as file:
            file.write(text)


def _first_view(job: Job) -> JobView:
    state = read_state(job.run_dir, job.protocol_hash)
    return JobView(job, state.state, state.progress, note=state.reason if state.state == FAILED else "")


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

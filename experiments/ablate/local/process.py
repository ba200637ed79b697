"""One job's process: started in a session of its own, watched by its files, ended in good order."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.runs.state import read_progress

GRACE_SECONDS = 20.0  # between asking a child to end and ending it


class Child:
    """A running process that logs to its run's `run.log`.

    Args:
        command: its command line.
        run_dir: the run's folder.
        gpus: those that it may see; empty for all.

    Attributes:
        offset: where its part of the log begins, in bytes.
        gpus: as given.

    Raises:
        OSError: it can't be started, or the log can't be written.
    """

    def __init__(self, command: Sequence[str], run_dir: Path, gpus: Sequence[str] = ()) -> None:
        self.run_dir, self.gpus = run_dir, tuple(gpus)
        self._launched, self._started, self._pace = time.time(), time.monotonic(), _Pace()
        environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else None
        with (run_dir / "run.log").open("ab") as log:
            self.offset = log.tell()
            # Its own session: a terminal's Ctrl-C reaches the runner only, which then ends the child in good order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environ,
            )

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def wait(self, seconds: float) -> int | None:
        """Return its exit code (negative: its signal) if it ends within `seconds`, else None."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=seconds)
        return None

    def progress(self) -> dict[str, Any]:
        """Return its newest `progress.json`; {} as long as there is only an earlier attempt's, or a damaged one."""
        progress = read_progress(self.run_dir)
        return progress if float(progress.get("time", 0.0)) >= self._launched else {}

    def remaining(self, progress: dict[str, Any]) -> float | None:
        """Return the seconds that its present phase still needs, at the speed seen so far; None if not known."""
        return self._pace.remaining(progress)

    def ask_to_end(self) -> None:
        """Ask it and its workers to end."""
        self._signal(signal.SIGTERM)

    def end(self) -> None:
        """Give it a while to end, then end it; a second Ctrl-C shortens the wait."""
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.wait(timeout=GRACE_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


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

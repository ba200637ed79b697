"""How the local runner shows its jobs: a live table on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.ablate.plan.job import Job
from experiments.runs.state import DONE, FAILED, INTERRUPTED, NOT_RUN, RUNNING, STYLES, seconds

PLAIN_SECONDS = 15.0  # at most this long between two lines where there is no terminal


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


@contextmanager
def display(console: Console, views: list[JobView]) -> Iterator[Callable[[], None]]:
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
    states = Counter(view.state for view in views)
    failed = f", {states[FAILED]} failed" if states[FAILED] else ""
    return f"{states[DONE]} of {len(views)} done{failed}{_outlook([view for view in views if view.job.trains])}"


def _outlook(trainings: Sequence[JobView]) -> str:
    seen = [view.elapsed for view in trainings if view.state == DONE and view.elapsed is not None]
    waiting = sum(view.state in (NOT_RUN, INTERRUPTED) for view in trainings)
    if not seen or not waiting:
        return ""
    return f"; the {waiting} waiting need about {seconds(waiting * sum(seen) / len(seen))}"


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

"""Progress of a long loop on standard error: a bar on a terminal, a plain line every half minute elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    wrap_file,
)
from rich.text import Text

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 30.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


@contextlib.contextmanager
def progress(description: str, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` are done, how many a second, and the time that is left.

    Args:
        description: what is being done.
        total: how many there are to do.
        shown: False shows nothing.

    Yields:
        A function to be called with the number of further ones that are done.
    """
    console = Console(stderr=True, quiet=not shown)
    if console.is_terminal and shown:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda number: bar.advance(task, number)
        return
    start = said = time.monotonic()
    count = 0

    def advance(number: int) -> None:
        nonlocal count, said
        count += number
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            rate = count / (now - start)
            left = f", {(total - count) / rate:.0f} s left" if rate else ""
            console.print(f"{description}: {count} of {total}, {rate:.1f}/s{left}", highlight=False, soft_wrap=True)

    console.print(f"{description}: {total} ...", highlight=False)
    yield advance
    console.print(f"{description}: done in {time.monotonic() - start:.1f} s", highlight=False)


def show_progress(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass `items` on while showing how many of `total` have been taken."""
    with progress(description, total) as advance:
        for item in items:
            yield item
            advance(1)


@contextlib.contextmanager
def show_reading(file: BinaryIO, description: str, total: int | None) -> Iterator[BinaryIO]:
    """Pass a binary file on while showing how many of its `total` bytes (None: unknown) have been read."""
    console = Console(stderr=True)
    if console.is_terminal:
        shown = total if total is not None else 0
        with wrap_file(file, shown, description=description, console=console, transient=True) as watched:
            yield watched
        return
    start = time.monotonic()
    size = "" if total is None else f": {total / 1e6:,.1f} MB"
    console.print(f"{description}{size} ...", highlight=False, markup=False, soft_wrap=True)
    yield file
    done = f"{description}: done in {time.monotonic() - start:.1f} s"
    console.print(done, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def show_ticks(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield what is to be called after each of `total` steps; shown on a terminal only, for work of some seconds."""
    with progress(description, total, shown=Console(stderr=True).is_terminal) as advance:
        yield lambda: advance(1)

"""Progress of a long loop on standard error: a bar on a terminal, two plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar

from rich.console import Console
from rich.progress import Progress, track, wrap_file

T = TypeVar("T")


def show_progress(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass `items` on while showing how many of `total` have been taken."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, description, total, console=console, transient=True)
        return
    start = time.monotonic()
    console.print(f"{description}: {total} ...", highlight=False)
    yield from items
    console.print(f"{description}: done in {time.monotonic() - start:.1f} s", highlight=False)


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
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)

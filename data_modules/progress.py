"""Progress of a long loop on standard error: a bar on a terminal, two plain lines elsewhere."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

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

"""Folders that are whole or absent: filled under a hidden name beside the final one, then renamed."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(folder: Path, shared: bool = False) -> Iterator[None]:
    """Hold the only right to write `folder`, waiting for whoever holds it; a killed holder loses it.

    The lock is the empty file `.<name>.lock` beside the folder; it stays there, because removing it would let
    two waiters lock two different files.

    Args:
        folder: what is to be written.
        shared: hold it together with others who do so; keeps off those who want it alone.

    Raises:
        OSError: the parent folder can't be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Try to hold the lock file `path`, without waiting; a killed holder loses it.

    Yields:
        Whether it is held.

    Raises:
        OSError: the folder can't be written.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

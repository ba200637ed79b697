"""Folders that are whole or absent: filled under a hidden name beside the final one, then renamed."""

import contextlib
import errno
import fcntl
import shutil
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


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to fill; it takes the place of `folder` when the block ends without an error.

    To be used inside `locked(folder)`. An error, an interrupt or a full disk removes what was written and keeps
    the old `folder`. What a killed process left is cleared up by the next one.

    Args:
        folder: the final name, a folder or absent.

    Yields:
        The folder to fill.

    Raises:
        OSError: the disk is full or can't be written.
    """
    partial, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    _clear_up(folder, partial, old)
    try:
        partial.mkdir()
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        _clear_up(folder, partial, old)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Say of an error in writing what could not be written and what to do.

    Raises:
        OSError: with the same number; the message names `folder`.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        raise OSError(
            error.errno,
            f"{folder} could not be written ({error.strerror or error}): make room or choose another place, then "
            "run the same command again; what was finished is kept, nothing half-written was left",
        ) from error


def _clear_up(folder: Path, partial: Path, old: Path) -> None:
    """Remove what is half-written; put the old folder back if the new one never arrived."""
    shutil.rmtree(partial, ignore_errors=True)
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)

"""Folders that are whole or absent: filled under a hidden name beside the final one, then renamed."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the only right to write `folder`, waiting for whoever holds it; a killed holder loses it.

    The lock is the empty file `.<name>.lock` beside the folder; it stays there, because removing it would let
    two waiters lock two different files.

    Raises:
        OSError: the parent folder can't be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to fill; it takes the place of `folder` when the block ends without an error.

    To be used inside `locked(folder)`. An error, an interrupt or a full disk removes what was written and keeps
    the old `folder`. What a killed process left is cleared up by the next one.

    Args:
        folder: the final name, a folder or absent.

    Yields:
        The folder to fill.

    Raises:
        OSError: the disk is full or can't be written; the message names `folder`.
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
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder} could not be written ({error.strerror or error}): make room or choose another place, then "
            "run again; nothing half-written was left",
        ) from error
    finally:
        _clear_up(folder, partial, old)


def _clear_up(folder: Path, partial: Path, old: Path) -> None:
    """Remove what is half-written; put the old folder back if the new one never arrived."""
    shutil.rmtree(partial, ignore_errors=True)
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)

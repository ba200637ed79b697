"""Files and folders that are whole or absent: they are written under a temporary name, then renamed."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:  # type: ignore[type-arg]  # str or bytes, by mode
    """Open a temporary file beside `path` and rename it to `path` when the block ends without an error.

    Args:
        path: the final name; its folder must exist.
        mode: "w" (UTF-8 text) or "wb".

    Raises:
        OSError: the disk is full or the folder can't be written; the message names `path`, which keeps its old
            content or stays absent.
    """
    encoding = None if "b" in mode else "utf-8"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        with Path(name).open(mode, encoding=encoding, newline="" if encoding else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # instead of none, or of the temporary name
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new folder to fill; it takes the place of `path` when the block ends without an error.

    After an error, an interrupt or a full disk, what was written is removed and the old folder is kept. What a killed
    process left behind is removed by the next call for the same path; if it was killed between the two renames, the
    old folder is put back. One process at a time: where several may write `path`, hold `locked(path)`.

    Args:
        path: the final folder, which may exist; the folders above it are made.

    Yields:
        The folder to fill, beside `path`, under a hidden name.

    Raises:
        OSError: the disk is full or the folder can't be written.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("partial", "old"))
    _clear_up(path, partial, old)
    try:
        partial.mkdir()
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        _clear_up(path, partial, old)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Add to an error in writing what could not be written, and what to do.

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

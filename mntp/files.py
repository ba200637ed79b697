"""Files that are whole or absent: written under a temporary name in the same folder, synced, then renamed; hashes."""

import contextlib
import hashlib
import os
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

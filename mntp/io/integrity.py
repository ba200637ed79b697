"""Integrity of files: size and sha256, hashed once per size and modification time."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mntp.io.files import atomic_write
from mntp.io.progress import show_reading
from mntp.io.storage import Folder

VERIFIED = ".verified.json"


def verify_files(
    folder: Path, entries: Mapping[str, Mapping[str, Any]], remedy: str, anew: bool = False, progress: bool = False
) -> None:
    """Check files of a folder against their recorded `bytes` and `sha256`.

    Checked files are remembered in `.verified.json` with their size and modification time. A folder that can't be
    written is checked anew every time.

    Args:
        folder: where the files lie.
        entries: by file name, `bytes` (None: unknown) and `sha256` (hex).
        remedy: what to do about a damaged file, the end of the message.
        anew: read files that are remembered as checked as well.
        progress: show how much of each file has been read.

    Raises:
        ValueError: a file is missing, truncated or altered; the message names it.
    """
    remembered = _read_verified(folder / VERIFIED)
    for name, entry in entries.items():
        _check_size(folder / name, entry["bytes"], remedy)
    for name, entry in entries.items():
        if anew or remembered.get(name) != _stamp(folder / name):
            _check_content(folder / name, entry["sha256"], remedy, progress)
    remember_verified(folder, entries)


def verify_remote(folder: Folder, entries: Mapping[str, Mapping[str, Any]], remedy: str) -> None:
    """Check the sizes of a remote folder's files; their content would have to be fetched whole.

    Raises:
        ValueError: a file is missing or has another size; the message names it.
    """
    for name, entry in entries.items():
        found = folder.open(name).size() if folder.is_file(name) else None
        if found != entry["bytes"]:
            raise ValueError(f"{folder / name}: {found} bytes, expected {entry['bytes']}; {remedy}")


def verify_file(path: Path, entry: Mapping[str, Any], remedy: str, progress: bool = False) -> None:
    """Check one file as `verify_files` does, without remembering it.

    Raises:
        ValueError: it is missing, truncated or altered; the message names it.
    """
    _check_size(path, entry["bytes"], remedy)
    _check_content(path, entry["sha256"], remedy, progress)


def remember_verified(folder: Path, names: Iterable[str]) -> None:
    """Remember that files of a folder, as they are now, have been checked."""
    remembered = _read_verified(folder / VERIFIED)
    stamps = remembered | {name: _stamp(folder / name) for name in names}
    if stamps != remembered:
        with contextlib.suppress(OSError), atomic_write(folder / VERIFIED) as file:
            json.dump(stamps, file)


def _read_verified(path: Path) -> dict[str, list[int]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return {}


def _stamp(path: Path) -> list[int]:
    """Size and modification time."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _check_size(path: Path, expected: int | None, remedy: str) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: missing from the store; {remedy}")
    found = path.stat().st_size
    if expected is not None and found != expected:
        raise ValueError(f"{path}: truncated or altered, {found} bytes, expected {expected}; {remedy}")


def _check_content(path: Path, expected: str, remedy: str, progress: bool) -> None:
    with path.open("rb") as plain:
        watched = show_reading(plain, f"checking {path.name}", path.stat().st_size)
        with watched if progress else contextlib.nullcontext(plain) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # BinaryIO as it is used
    if found != expected:
        raise ValueError(f"{path}: altered, sha256 {found[:12]}..., expected {expected[:12]}...; {remedy}")

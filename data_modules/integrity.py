"""Whether files are still what was written: size and sha256, each file once per size and modification time."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from data_modules.storage import Folder
from mntp.files import atomic_write

VERIFIED = ".verified.json"


def verify_files(folder: Folder, entries: dict[str, dict[str, Any]], remedy: str) -> None:
    """Check files of a folder against their recorded `bytes` and `sha256`, of a remote one against `bytes` alone.

    What was checked is remembered in `.verified.json`, with its size and modification time; a folder that can't
    be written is checked anew every time.

    Args:
        folder: where the files lie.
        entries: by file name, `bytes` and `sha256` (hex).
        remedy: what to do about a damaged file, the end of the message.

    Raises:
        ValueError: a file is missing, truncated or altered; the message names it.
    """
    if folder.path is None:
        for name, entry in entries.items():
            _check_remote(folder, name, entry["bytes"], remedy)
        return
    path = folder.path
    remembered = _read_verified(path / VERIFIED)
    stamps = {name: _check_size(path / name, entry["bytes"], remedy) for name, entry in entries.items()}
    for name, stamp in stamps.items():
        if remembered.get(name) != stamp:
            _check_content(path / name, entries[name]["sha256"], remedy)
    if remembered != stamps:
        with contextlib.suppress(OSError), atomic_write(path / VERIFIED) as file:
            json.dump(stamps, file)


def check_file(path: Path, entry: dict[str, Any], remedy: str) -> None:
    """Check one file against its recorded `bytes` and `sha256`.

    Raises:
        ValueError: it is missing, truncated or altered; the message names it.
    """
    _check_size(path, entry["bytes"], remedy)
    _check_content(path, entry["sha256"], remedy)


def _read_verified(path: Path) -> dict[str, list[int]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return {}


def _check_remote(folder: Folder, name: str, expected: int, remedy: str) -> None:
    found = folder.open(name).size() if folder.is_file(name) else None
    if found != expected:
        raise ValueError(f"{folder / name}: {found} bytes, expected {expected}; {remedy}")


def _check_size(path: Path, expected: int, remedy: str) -> list[int]:
    """Size and modification time of a file that has the size it should have."""
    if not path.is_file():
        raise ValueError(f"{path}: missing from the store; {remedy}")
    stat = path.stat()
    if stat.st_size != expected:
        raise ValueError(f"{path}: truncated or altered, {stat.st_size} bytes, expected {expected}; {remedy}")
    return [stat.st_size, stat.st_mtime_ns]


def _check_content(path: Path, expected: str, remedy: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path}: altered, sha256 {found[:12]}..., expected {expected[:12]}...; {remedy}")

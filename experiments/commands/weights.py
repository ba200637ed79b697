"""`mntp weights`: the public checkpoints that scores need; only what is named is downloaded."""

import contextlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.table import Table

from mntp.io.integrity import remember_verified, verify_file
from mntp.io.locks import locked
from mntp.io.progress import show_reading
from mntp.pretrained.catalogue import FOLDER, KNOWN, Weights, fetch_command, known_weights, verify_weights

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60


def list_weights(folder: Path = FOLDER) -> None:
    """Show the known files of weights, and which of them are there.

    Args:
        folder: where files of weights lie.
    """
    table = Table(title=f"weights in {folder}")
    for title in ("name", "for", "size", "licence", "state"):
        table.add_column(title, justify="right" if title == "size" else "left")
    for name, weights in KNOWN.items():
        table.add_row(name, weights.purpose, weights.size, weights.licence, _state(folder, weights))
    Console().print(table)
    for name, weights in KNOWN.items():
        _say(f"{name:<18} {weights.url}")


def check(folder: Path = FOLDER) -> None:
    """Compare size and sha256 of every file of weights that is there, read anew.

    Args:
        folder: where files of weights lie.

    Raises:
        ValueError: a file is truncated or altered; every such file is named.
    """
    wrong = []
    for name, weights in KNOWN.items():
        if not (folder / weights.file).is_file():
            _say(f"{name:<18} absent")
            continue
        try:
            verify_weights(folder, name, anew=True)
        except ValueError as error:
            wrong.append(str(error))
            _say(f"{name:<18} damaged")
        else:
            _say(f"{name:<18} whole and unaltered")
    if wrong:
        raise ValueError("; ".join(wrong))


def fetch(names: list[str], folder: Path = FOLDER) -> None:
    """Download files of weights by name, or continue an interrupted download; existing files are kept.

    Args:
        names: of the files; `mntp weights list` shows them.
        folder: where files of weights lie.

    Raises:
        ValueError: an unknown name, no connection, or what came is truncated or altered.
    """
    asked = {name: known_weights(name) for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    for name, weights in asked.items():
        _say(f"{name}: {weights.file}, {weights.size}, {weights.licence}, from {weights.url}")
        path = folder / weights.file
        with locked(path):
            if path.is_file() and _state(folder, weights) == "present":
                verify_weights(folder, name)
                _say(f"{name}: already there")
                continue
            _download(weights, folder, name)
            _say(f"{name}: written to {path}")


def _state(folder: Path, weights: Weights) -> str:
    path = folder / weights.file
    if not path.is_file():
        return "absent"
    found = path.stat().st_size
    return "present" if found == weights.num_bytes or not weights.exact else f"wrong size: {found} bytes"


def _download(weights: Weights, folder: Path, name: str) -> None:
    """Download a file whole or not at all; the received part of an interrupted download is kept beside it."""
    part = folder / f".{weights.file}.part"
    if not part.is_file() or part.stat().st_size != weights.entry["bytes"]:  # else stopped before it was checked
        _receive(weights, part, name, f"{weights.url}: {{reason}}; to go on: {fetch_command(name, folder)}")
    try:
        verify_file(part, weights.entry, f"it is deleted; try again: {fetch_command(name, folder)}", progress=True)
    except ValueError:
        part.unlink()
        raise
    part.replace(folder / weights.file)
    remember_verified(folder, [weights.file])


def _receive(weights: Weights, part: Path, name: str, again: str) -> None:
    """Append what is received to `part`."""
    with _connect(weights, part, again) as (response, start, total):
        if weights.exact and total not in (None, weights.num_bytes):
            raise ValueError(f"{weights.url}: offers {total} bytes, expected {weights.num_bytes}: it is another file")
        left = None if total is None else total - start
        with part.open("ab" if start else "wb") as file, show_reading(response, f"fetching {name}", left) as source:
            while chunk := _read(source, again):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    came = part.stat().st_size
    if total is not None and came < total:
        raise ValueError(again.format(reason=f"ended after {came} of {total} bytes"))


@contextlib.contextmanager
def _connect(weights: Weights, part: Path, again: str) -> Iterator[tuple[BinaryIO, int, int | None]]:
    """Ask for what is missing of `part`; gives the answer, where it starts and the whole file's size, if stated."""
    start = part.stat().st_size if part.is_file() else 0
    if weights.exact and start > weights.num_bytes:
        start = 0
    ranges = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urlopen(Request(weights.url, headers={"User-Agent": "mntp", **ranges}), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file that lies there now
        raise ValueError(again.format(reason=f"answers {error.code} {error.reason}")) from error
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(again.format(reason=f"no connection ({error})")) from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server gives the whole file or nothing
        length = response.headers["Content-Length"]
        yield response, start, None if length is None else start + int(length)


def _read(source: BinaryIO, again: str) -> bytes:
    try:
        return source.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(again.format(reason=f"broke off ({error})")) from error


def _say(line: str) -> None:
    Console().print(line, markup=False, highlight=False, soft_wrap=True)

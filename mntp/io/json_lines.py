"""JSON files, written whole or not at all, and logs of one JSON object a line that a resumed run continues exactly."""

import json
import math
import os
from pathlib import Path
from typing import Any

from mntp.io.files import atomic_write


def finite_or_none(value: float) -> float | None:
    """The value, or None if it is infinite or NaN, which JSON can't express."""
    return value if math.isfinite(value) else None


def append_line(path: Path, content: dict[str, Any]) -> None:
    """Append one object by a single write, so that lines of several processes never mix."""
    line = json.dumps(content, allow_nan=False) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def drop_lines_from(path: Path, step: int) -> None:
    """Drop the lines from `step` on, and the half line that a killed process may have left; the file may be absent."""
    if not path.is_file():
        return
    whole = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    with atomic_write(path) as file:
        file.writelines(line + "\n" for line in whole if json.loads(line)["step"] < step)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    with atomic_write(path) as file:
        json.dump(content, file, indent=2, sort_keys=True)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, {} where there is no such file.

    Raises:
        ValueError: the file isn't a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); remove it and run the cell again") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a JSON object, got {type(content).__name__}; remove it and run the cell again"
        )
    return content

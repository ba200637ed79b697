"""Tables of captions in JSON: `{"file": "caption"}` or `{"file": ["caption", ...]}`, each file once."""

import json
from pathlib import Path
from typing import Any

from data_modules.captions.rows import unreadable


def read_json(table: Path, expected: str) -> Any:
    """Read a whole JSON file, in which no object has a key twice.

    Args:
        table: the file, UTF-8.
        expected: the end of the message about a wrong one.

    Raises:
        ValueError: it is missing, not UTF-8, not JSON, or an object has a key twice; the message names it.
    """
    try:
        return json.loads(table.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise unreadable(table, error, expected) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{table}, line {error.lineno}: not JSON ({error.msg}); {expected}") from error
    except _NamedTwiceError as error:
        raise ValueError(f"{table}: names {error} twice; {expected}, each once") from None


def caption_lists(content: Any, table: Path, expected: str) -> dict[str, list[str]]:
    """Check a mapping from files to one caption or several.

    Args:
        content: of `read_json`.
        table: where it comes from, for the messages.
        expected: the end of the message about a wrong one.

    Returns:
        By file, in the table's order, at least one caption, none of them empty.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{table}: got {type(content).__name__}; {expected}")
    if not content:
        raise ValueError(f"{table}: holds no captions; {expected}")
    found = {}
    for file, value in content.items():
        captions = value if isinstance(value, list) else [value]
        if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
            raise ValueError(
                f"{table}, {file}: expected a caption or a list of captions, none empty, got {value!r:.80}"
            )
        found[file] = [caption.strip() for caption in captions]
    return found


class _NamedTwiceError(Exception):
    """A JSON object has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; the standard reader would silently keep the last of two equal keys."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _NamedTwiceError(key)
        found[key] = value
    return found

"""Captions of files that are to be scored: one for each file name."""

import json
from pathlib import Path, PurePosixPath

from data_modules.captions.rows import read_captions
from mntp.seeding import derive_seed


def captions_by_name(table: Path, reference: Path, seed: int = 0) -> dict[str, str]:
    """Read captions by file name; of a path, the name alone counts.

    Args:
        table: CSV with the columns file, caption; or JSON {file: caption} or {file: [captions]}.
        reference: folder that the files of a CSV table lie in.
        seed: chooses one caption of several, each file by its own name.

    Raises:
        ValueError: the table can't be read, two files have the same name, or a caption is empty.
    """
    if table.suffix.lower() == ".json":
        rows = [(file, _choose(table, file, value, seed), file) for file, value in _read_mapping(table).items()]
    else:
        rows = [(row.file, row.caption, f"line {row.line}") for row in read_captions(table, reference)]
    captions: dict[str, str] = {}
    for file, caption, where in rows:
        name = PurePosixPath(file).name
        if name in captions:
            raise ValueError(f"{table}, {where}: a second file named {name}; scores pair files by name alone")
        captions[name] = caption
    return captions


def _read_mapping(table: Path) -> dict[str, object]:
    expected = "expected JSON {file: caption} or {file: [captions]}"
    try:
        content = json.loads(table.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        raise ValueError(f"{table}: not readable ({error.strerror}); {expected}") from error
    except _NamedTwiceError as error:
        raise ValueError(f"{table}: names {error} twice; {expected}, each file once") from None
    except ValueError as error:
        raise ValueError(f"{table}: not JSON ({error}); {expected}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{table}: got {type(content).__name__}; {expected}")
    if not content:
        raise ValueError(f"{table}: holds no captions; {expected}")
    return content


class _NamedTwiceError(Exception):
    """A key of a JSON object came twice."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; of a key that comes twice the standard reader would keep the last."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _NamedTwiceError(key)
        found[key] = value
    return found


def _choose(table: Path, file: str, value: object, seed: int) -> str:
    choices = value if isinstance(value, list) else [value]
    if not choices or not all(isinstance(caption, str) and caption.strip() for caption in choices):
        raise ValueError(f"{table}, {file}: expected a caption or a list of captions, none empty, got {value!r:.80}")
    return str(choices[derive_seed(seed, "caption", PurePosixPath(file).name) % len(choices)]).strip()

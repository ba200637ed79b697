"""The captions table `file,caption[,split]`, as CSV or JSONL, beside a folder of audio files."""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("file", "caption")


@dataclass(frozen=True)
class CaptionRow:
    """One row of a captions table.

    Attributes:
        file: the audio file, relative to the audio folder, with forward slashes.
        caption: what is heard.
        split: `train`, `val` or `test`.
        line: where the row ends in the table, or which entry of a JSON list it is, counted from 1.
    """

    file: str
    caption: str
    split: str
    line: int


def split_by_hash(file: str) -> str:
    """Assign a file to a split by its name alone: 90 % train, 5 % val, 5 % test."""
    percent = int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big") % 100
    return "train" if percent < 90 else "val" if percent < 95 else "test"


def has_words(caption: str) -> bool:
    """Whether a caption holds at least one letter or digit, in any script."""
    return any(character.isalnum() for character in caption)


def read_captions(table: Path, audio: Path) -> list[CaptionRow]:
    """Read and check a captions table of one row a file; whether the files can be read is not checked here.

    Args:
        table: as in `read_captions_table`.
        audio: the folder that `file` is relative to.

    Returns:
        The rows in the table's order.

    Raises:
        ValueError: see `read_captions_table`; or a file comes twice.
    """
    lines: dict[str, int] = {}
    rows = read_captions_table(table, audio)
    for row in rows:
        if row.file in lines:
            raise ValueError(
                f"{table}, line {row.line}: file {row.file!r} was named in line {lines[row.file]} already; expected "
                "one row a file"
            )
        lines[row.file] = row.line
    return rows


def read_captions_table(table: Path, audio: Path, split: str | None = None) -> list[CaptionRow]:
    """Read and check a captions table, in which a file may have several captions.

    Columns other than `file`, `caption` and `split` are ignored. Without a `split` column, `split_by_hash`
    decides. Files may be symbolic links, as long as they stay in the folder.

    Args:
        table: UTF-8 with or without a byte order mark; CSV with a header, or if the name ends in .jsonl one JSON
            object a line.
        audio: the folder that `file` is relative to.
        split: of all rows, whatever the table says.

    Returns:
        The rows in the table's order.

    Raises:
        ValueError: the table is missing, empty, malformed or not UTF-8; a split is unknown; a file name leaves
            the folder; a caption has no words. The message names the table and the line.
    """
    check_folder(audio)
    read = _read_jsonl if table.suffix == ".jsonl" else read_csv
    rows = []
    for line, cells in read(table):
        check_inside(f"{table}, line {line}", cells["file"].strip(), audio)
        rows.append(
            check_row(f"{table}, line {line}", line, cells["file"], cells["caption"], split or cells.get("split"))
        )
    if not rows:
        raise ValueError(f"{table}: the table has no rows; expected one line file,caption[,split] a clip")
    return rows


def read_prompts(path: Path) -> tuple[list[str], int]:
    """Read captions that have no files yet.

    Args:
        path: UTF-8; a CSV table with a column `caption` if the name ends in .csv, else one caption a line.

    Returns:
        The captions in the file's order, and how many empty lines were left out.

    Raises:
        ValueError: the file is missing, not UTF-8 or malformed, holds no caption, or a caption has no words.
    """
    if path.suffix.lower() == ".csv":
        lines = [(line, cells["caption"]) for line, cells in read_csv(path, ("caption",))]
    else:
        lines = list(enumerate(_read_lines(path, "expected one caption a line"), start=1))
    captions = [(line, caption.strip()) for line, caption in lines if caption.strip()]
    for line, caption in captions:
        if not has_words(caption):
            raise ValueError(f"{path}, line {line}: the caption {caption!r} has no words; say what is heard")
    if not captions:
        raise ValueError(f"{path}: holds no captions; expected one a line, or CSV with a column caption")
    return [caption for _, caption in captions], len(lines) - len(captions)


def check_folder(audio: Path) -> None:
    """Refuse an audio folder that isn't one."""
    if not audio.is_dir():
        raise ValueError(f"{audio}: no such folder; --audio expects the folder that the table's files lie in")


def check_row(where: str, line: int, file: str, caption: str, split: str | None) -> CaptionRow:
    """Check the cells of one row; the split is by hash where there is none."""
    file, caption = file.strip(), caption.strip()
    if not has_words(caption):
        raise ValueError(f"{where}: the caption {caption!r} of {file!r} has no words; say what is heard")
    name = PurePosixPath(file).as_posix()
    split = split_by_hash(name) if split is None else split.strip()
    if split not in SPLITS:
        raise ValueError(f"{where}: unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    return CaptionRow(name, caption, split, line)


def read_csv(table: Path, required: tuple[str, ...] = REQUIRED_COLUMNS) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and named cells of each row that isn't blank."""
    columns = "file,caption[,split]" if required == REQUIRED_COLUMNS else ",".join(required)
    expected = f"expected CSV with a header {columns}"
    header: list[str] | None = None
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for fields in reader:
                if not fields:
                    continue
                if header is None:
                    header = _check_header(table, fields, required, columns)
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"{table}, line {reader.line_num}: {len(fields)} fields, but the header has "
                        f"{len(header)} ({','.join(header)}); put captions with commas into double quotes"
                    )
                yield reader.line_num, dict(zip(header, fields, strict=True))
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise unreadable(table, error, expected) from error
    except csv.Error as error:
        raise ValueError(f"{table}, line {reader.line_num}: {error}; {expected}") from error
    if header is None:
        raise ValueError(f"{table}: the table is empty; {expected}")


def _read_jsonl(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and values of each line that isn't blank."""
    expected = 'expected one object {"file": ..., "caption": ...[, "split": ...]} a line'
    for number, line in enumerate(_read_lines(table, expected), start=1):
        if not line.strip():
            continue
        where = f"{table}, line {number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg}); {expected}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{where}: got {type(values).__name__}; {expected}")
        known = {name: values[name] for name in (*REQUIRED_COLUMNS, "split") if name in values}
        wrong = [name for name in REQUIRED_COLUMNS if name not in known]
        wrong += [name for name, value in known.items() if not isinstance(value, str)]
        if wrong:
            raise ValueError(f"{where}: no text under {', '.join(wrong)}; {expected}")
        yield number, known


def _read_lines(path: Path, expected: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise unreadable(path, error, expected) from error


def unreadable(table: Path, error: OSError | UnicodeDecodeError, expected: str) -> ValueError:
    """The error about a table that is missing, a folder, or not UTF-8."""
    if isinstance(error, UnicodeDecodeError):
        return ValueError(f"{table}: not UTF-8 ({error.reason}); save the table as UTF-8")
    return ValueError(f"{table}: {'is a folder' if table.is_dir() else 'no such file'}; {expected}")


def _check_header(table: Path, fields: list[str], required: tuple[str, ...], columns: str) -> list[str]:
    header = [field.strip() for field in fields]
    missing = [column for column in required if column not in header]
    if missing:
        raise ValueError(
            f"{table}, line 1: no column {', '.join(missing)}; expected a header {columns}, got {','.join(header)}"
        )
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise ValueError(f"{table}, line 1: column {twice[0]!r} comes twice; expected {columns}")
    return header


def check_inside(where: str, file: str, audio: Path) -> None:
    """Refuse names that are empty, unreadable or lead out of the audio folder, through links too."""
    expected = "expected a path relative to the audio folder and inside it"
    if not file or "\0" in file:
        raise ValueError(f"{where}: {file!r} is no file name; {expected}")
    path = PurePosixPath(file)
    inside = not path.is_absolute() and ".." not in path.parts
    if not inside or not (audio / file).resolve().is_relative_to(audio.resolve()):
        raise ValueError(f"{where}: file {file!r} leaves the audio folder {audio}; {expected}")

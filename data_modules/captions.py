"""The captions table: `file,caption[,split]` as CSV, beside a folder of audio files."""

import csv
import hashlib
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
        line: where the row ends in the table, counted from 1.
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
    """Read and check a captions table; whether the files can be read is not checked here.

    Columns other than `file`, `caption` and `split` are ignored. Without a `split` column, `split_by_hash`
    decides. Files may be symbolic links, as long as they stay in the folder.

    Args:
        table: CSV with a header, UTF-8 with or without a byte order mark.
        audio: the folder that `file` is relative to.

    Returns:
        The rows in the table's order.

    Raises:
        ValueError: the table is missing, empty, malformed or not UTF-8; a split is unknown; a file name leaves
            the folder or comes twice; a caption has no words. The message names the table and the line.
    """
    if not audio.is_dir():
        raise ValueError(f"{audio}: no such folder; --audio expects the folder that the table's files lie in")
    rows: list[CaptionRow] = []
    lines: dict[str, int] = {}
    for line, cells in _read_cells(table):
        where = f"{table}, line {line}"
        row = _check_row(where, line, cells, audio)
        if row.file in lines:
            raise ValueError(
                f"{where}: file {row.file!r} was named in line {lines[row.file]} already; expected one row a file"
            )
        lines[row.file] = line
        rows.append(row)
    if not rows:
        raise ValueError(f"{table}: the table has no rows; expected one line file,caption[,split] a clip")
    return rows


def _read_cells(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and named cells of each row that isn't blank."""
    expected = "expected CSV with a header file,caption[,split]"
    header: list[str] | None = None
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for fields in reader:
                if not fields:
                    continue
                if header is None:
                    header = _check_header(table, fields)
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"{table}, line {reader.line_num}: {len(fields)} fields, but the header has "
                        f"{len(header)} ({','.join(header)}); put captions with commas into double quotes"
                    )
                yield reader.line_num, dict(zip(header, fields, strict=True))
    except FileNotFoundError:
        raise ValueError(f"{table}: no such file; {expected}") from None
    except IsADirectoryError:
        raise ValueError(f"{table}: is a folder; {expected}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not UTF-8 ({error.reason}); save the table as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{table}, line {reader.line_num}: {error}; {expected}") from error
    if header is None:
        raise ValueError(f"{table}: the table is empty; {expected}")


def _check_header(table: Path, fields: list[str]) -> list[str]:
    header = [field.strip() for field in fields]
    missing = [column for column in REQUIRED_COLUMNS if column not in header]
    if missing:
        raise ValueError(
            f"{table}, line 1: no column {', '.join(missing)}; expected a header file,caption[,split], "
            f"got {','.join(header)}"
        )
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise ValueError(f"{table}, line 1: column {twice[0]!r} comes twice; expected file,caption[,split]")
    return header


def _check_row(where: str, line: int, cells: dict[str, str], audio: Path) -> CaptionRow:
    file, caption = cells["file"].strip(), cells["caption"].strip()
    _check_inside(where, file, audio)
    if not has_words(caption):
        raise ValueError(f"{where}: the caption {caption!r} of {file!r} has no words; say what is heard")
    split = cells["split"].strip() if "split" in cells else split_by_hash(PurePosixPath(file).as_posix())
    if split not in SPLITS:
        raise ValueError(f"{where}: unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    return CaptionRow(PurePosixPath(file).as_posix(), caption, split, line)


def _check_inside(where: str, file: str, audio: Path) -> None:
    """Refuse names that are empty, unreadable or lead out of the audio folder, through links too."""
    expected = "expected a path relative to the audio folder and inside it"
    if not file or "\0" in file:
        raise ValueError(f"{where}: {file!r} is no file name; {expected}")
    path = PurePosixPath(file)
    inside = not path.is_absolute() and ".." not in path.parts
    if not inside or not (audio / file).resolve().is_relative_to(audio.resolve()):
        raise ValueError(f"{where}: file {file!r} leaves the audio folder {audio}; {expected}")

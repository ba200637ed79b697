"""Captions of files that are to be scored: one for each file name."""

from pathlib import Path, PurePosixPath

from data_modules.captions.json_table import caption_lists, read_json
from data_modules.captions.rows import read_captions
from mntp.seeding import derive_seed

_EXPECTED = "expected JSON {file: caption} or {file: [captions]}"


def captions_by_name(table: Path, reference: Path, seed: int = 0) -> dict[str, str]:
    """Read captions by file name, without the folders that stand before it.

    Args:
        table: CSV with the columns file, caption; or JSON {file: caption} or {file: [captions]}.
        reference: folder that the files of a CSV table lie in.
        seed: chooses one caption of several, for each file by its own name.

    Raises:
        ValueError: the table can't be read, two files have the same name, or a caption is empty.
    """
    if table.suffix.lower() == ".json":
        choices = caption_lists(read_json(table, _EXPECTED), table, _EXPECTED)
        rows = [(file, _choose(file, captions, seed), file) for file, captions in choices.items()]
    else:
        rows = [(row.file, row.caption, f"line {row.line}") for row in read_captions(table, reference)]
    captions: dict[str, str] = {}
    for file, caption, where in rows:
        name = PurePosixPath(file).name
        if name in captions:
            raise ValueError(f"{table}, {where}: a second file named {name}; scores pair files by name alone")
        captions[name] = caption
    return captions


def _choose(file: str, captions: list[str], seed: int) -> str:
    return captions[derive_seed(seed, "caption", PurePosixPath(file).name) % len(captions)]

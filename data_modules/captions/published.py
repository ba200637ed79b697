"""Tables of public corpora as they are published, matched to a folder of audio files.

AudioCaps: CSV `audiocap_id,youtube_id,start_time,caption` (github.com/cdjkim/audiocaps), one file for each split.
WavCaps: JSON `{"data": [{"id", "caption", "duration", ...}]}` (github.com/XinhaoMei/WavCaps), no splits.
A list of captions: JSON `{"file": "caption"}` or `{"file": ["caption", ...]}`, as AudioLDM's list of AudioCaps' test
clips.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_modules.captions.json_table import caption_lists, read_json
from data_modules.captions.rows import (
    SPLITS,
    CaptionRow,
    check_folder,
    check_inside,
    check_row,
    read_captions_table,
    read_csv,
)

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")
AUDIOCAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_JSON = (
    'expected {"data": [{"id": ..., "caption": ...}, ...]} as in WavCaps, {"file": "caption", ...} or '
    '{"file": ["caption", ...], ...}'
)
_CLIP_SECONDS = 10


def read_table(table: Path, audio: Path, split: str | None = None) -> list[CaptionRow]:
    """Read a table of any kind: its name and its header say which.

    Args:
        table: .jsonl or CSV with `file` and `caption`, AudioCaps' CSV, WavCaps' JSON, or a JSON list of captions.
        audio: the folder of the audio files, which for AudioCaps and WavCaps lie directly in it.
        split: of all rows. Where it is not given: the table's own column, for AudioCaps the table's name (train.csv,
            val.csv, test.csv), for WavCaps train, otherwise a hash of the file's name.

    Returns:
        The rows in the table's order; a file may come several times, and may be missing.

    Raises:
        ValueError: the table is malformed (see `read_captions_table`), none of its files is there, or two files
            are there for one row. The message names the table and the line.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"{table}: unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    if table.suffix == ".json":
        return _read_json_table(table, audio, split)
    if _is_audiocaps(table):
        return _read_audiocaps(table, audio, split)
    return read_captions_table(table, audio, split)


def read_excluded(path: Path) -> set[str]:
    """Read a list of rows to leave out, as WavCaps publishes them against overlap with other corpora's test clips.

    Args:
        path: a JSON list of ids or file names, or an object of such lists.

    Returns:
        The names without their suffixes .wav or .flac.

    Raises:
        ValueError: it is something else.
    """
    expected = 'expected a JSON list of ids, or {"name": [ids], ...}'
    content = read_json(path, expected)
    lists = list(content.values()) if isinstance(content, dict) else [content]
    if any(not isinstance(ids, list) or any(not isinstance(id, str | int) for id in ids) for ids in lists):
        raise ValueError(f"{path}: {expected}")
    return {str(id).removesuffix(".wav").removesuffix(".flac") for ids in lists for id in ids}


class _Listing:
    """The audio files directly in a folder, found by their names without the suffix."""

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        self.folder = folder
        self._files: dict[str, list[str]] = defaultdict(list)
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122  # of a name, many thousand times
                if suffix.lower() in AUDIO_SUFFIXES:
                    self._files[stem].append(entry.name)

    def find(self, stems: Sequence[str], where: str) -> str | None:
        """The one file that has one of the names, or None."""
        found = sorted({file for stem in stems for file in self._files.get(stem, ())})
        if len(found) > 1:
            raise ValueError(f"{where}: both {found[0]} and {found[1]} lie in {self.folder}; remove one of them")
        return found[0] if found else None

    def check_any(self, table: Path, rows: Iterable[tuple[str, str | None]]) -> None:
        """Refuse a folder that holds no file of the table: it is another folder, or its files have other names."""
        rows = list(rows)
        if rows and not any(found for _, found in rows):
            raise ValueError(
                f"{table}: none of its {len(rows)} files lies in {self.folder}, first looked for: {rows[0][0]}; "
                "give the folder that holds the audio files themselves"
            )


def _is_audiocaps(table: Path) -> bool:
    if table.suffix != ".csv" or not table.is_file():
        return False
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        return AUDIOCAPS_COLUMNS[0] in [field.strip() for field in file.readline().split(",")]


def _read_audiocaps(table: Path, audio: Path, split: str | None) -> list[CaptionRow]:
    """AudioCaps' CSV; its val and test tables have five captions a clip."""
    listing = _Listing(audio)
    if split is None:
        split = table.stem
        if split not in SPLITS:
            raise ValueError(
                f"{table}: which split AudioCaps' rows belong to is not in the table; name it train.csv, val.csv or "
                "test.csv, or give a split"
            )
    cells = list(read_csv(table, AUDIOCAPS_COLUMNS))
    stems = [_audiocaps_names(f"{table}, line {line}", row) for line, row in cells]
    found = [listing.find(names, f"{table}, line {line}") for names, (line, _) in zip(stems, cells, strict=True)]
    tried = ["|".join(names) + ".*" for names in stems]
    listing.check_any(table, zip(tried, found, strict=True))
    return [
        check_row(f"{table}, line {line}", line, file or f"{names[0]}.wav", row["caption"], split)
        for (line, row), names, file in zip(cells, stems, found, strict=True)
    ]


def _audiocaps_names(where: str, row: dict[str, str]) -> list[str]:
    """Names that downloaders give a clip: its video, its video and time (seconds or milliseconds), its own id."""
    video, start = row["youtube_id"].strip(), row["start_time"].strip()
    if not video or not start.isdigit():
        raise ValueError(
            f"{where}: youtube_id {video!r} and start_time {start!r}; expected an id and a whole number of seconds"
        )
    begin, end = int(start), int(start) + _CLIP_SECONDS
    names = [video, f"{video}_{begin}", f"{video}_{begin}_{end}", f"{video}_{begin * 1000}_{end * 1000}"]
    return [f"Y{video}", *names, f"Y{video}_{begin}", row["audiocap_id"].strip()]


def _read_json_table(table: Path, audio: Path, split: str | None) -> list[CaptionRow]:
    content = read_json(table, _JSON)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        return _read_wavcaps(table, audio, content["data"], split or "train")
    check_folder(audio)
    rows = []
    for number, (file, captions) in enumerate(caption_lists(content, table, _JSON).items(), start=1):
        check_inside(f"{table}, entry {number}", file.strip(), audio)
        rows += [check_row(f"{table}, entry {number}", number, file, caption, split) for caption in captions]
    return rows


def _read_wavcaps(table: Path, audio: Path, entries: list[Any], split: str) -> list[CaptionRow]:
    """WavCaps' entries; an AudioSet id ends in .wav, although the published files are FLAC."""
    listing = _Listing(audio)
    stems = []
    for number, entry in enumerate(entries, start=1):
        if not (
            isinstance(entry, dict) and isinstance(entry.get("id"), str | int) and isinstance(entry.get("caption"), str)
        ):
            raise ValueError(f"{table}, entry {number}: no id or no text under caption; {_JSON}")
        stems.append(str(entry["id"]).strip().removesuffix(".wav"))
    found = [listing.find([stem], f"{table}, entry {number}") for number, stem in enumerate(stems, start=1)]
    listing.check_any(table, zip((f"{stem}.*" for stem in stems), found, strict=True))
    return [
        check_row(f"{table}, entry {number}", number, file or f"{stem}.flac", entry["caption"], split)
        for number, (stem, file, entry) in enumerate(zip(stems, found, entries, strict=True), start=1)
    ]

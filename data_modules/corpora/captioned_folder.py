"""A folder of sounds with a table of captions, as the source of a store."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import soundfile
from torch import Tensor

from data_modules.captions.published import read_excluded, read_table
from data_modules.corpora.base import ClipSize, Row, Source, UnusableClip, Window, Windows
from data_modules.store.clips import ClipRow
from mntp.audio.files import AudioError, read_audio
from mntp.audio.log_mel import fit_length, normalise
from mntp.io.fingerprint import hash_text

Cutting = Literal["first", "all", "random"]
CUTTINGS: tuple[Cutting, ...] = ("first", "all", "random")
# A last window with less sound than this is dropped.
MIN_REMAINDER_SECONDS = 0.16
# A sound that is shorter than half an analysis window of the log-mel is too short.
MIN_SECONDS = 0.032
# A window whose peak around its mean is below this, about three steps of 16 bits, is silent.
SILENCE = 1e-4
MAX_ID_LENGTH = 100


class CaptionedFolder(Source):
    """A folder of sounds with a captions table, cut into windows.

    A window is normalised over its sound and then padded with zeros. Silent windows are dropped. So is a last one with
    less than 0.16 s of sound, unless it is the only one.

    Args:
        captions: the table, see `read_table`.
        audio: the folder that the table's files lie in.
        windows: which windows of a longer sound are kept. `first`: the first one that is not silent. `all`: all of
            them. `random`: all in the training split, of which each epoch draws one a sound; the first one elsewhere.
        split: of all rows; by default what the table says, see `read_table`.
        exclude: a list of rows to leave out, see `read_excluded`.

    Attributes:
        num_excluded: rows of the table that `exclude` names.

    Raises:
        ValueError: the table is wrong (see `read_table`), or `windows` is unknown.
    """

    def __init__(
        self,
        captions: Path,
        audio: Path,
        windows: Cutting = "first",
        split: str | None = None,
        exclude: Path | None = None,
    ) -> None:
        if windows not in CUTTINGS:
            raise ValueError(f"windows: got {windows!r}, expected one of {', '.join(CUTTINGS)}")
        self.captions = captions
        self.audio = audio
        self.windows = windows
        table = read_table(captions, audio, split)
        excluded = read_excluded(exclude) if exclude else set()
        kept = [row for row in table if PurePosixPath(row.file).stem not in excluded]
        self.num_excluded = len(table) - len(kept)
        if not kept:
            raise ValueError(f"{captions}: {exclude} names each of its rows; expected some to be left")
        ids = clip_ids([row.file for row in kept])
        self.rows = [Row(id, row.file, row.split, row.caption) for id, row in zip(ids, kept, strict=True)]

    def settings(self) -> dict[str, Any]:
        """Hashes of the table's rows and of the files' sizes, and `windows`; the folder itself doesn't count."""
        rows = [(row.file, row.caption, row.split) for row in self.rows]
        sizes = [_size(self.audio / row.file) for row in self.rows]
        return {
            "kind": "captioned folder",
            "captions": hash_text(repr(rows)),
            "file_sizes": hash_text(repr(sizes)),
            "windows": self.windows,
        }

    def stamp(self, row: Row) -> Any:
        """The way of cutting, and the file's size and time of modification."""
        path = self.audio / row.file
        if not path.is_file():
            return [self._cutting(row), None]
        stat = path.stat()
        return [self._cutting(row), stat.st_size, stat.st_mtime_ns]

    def reading(self) -> dict[str, Any]:
        """One window of each sound an epoch, where they are cut at random."""
        return {"corpora": [{"name": "", "weight": 1.0, "one_window": True}]} if self.windows == "random" else {}

    def read(self, row: Row, size: ClipSize) -> Windows:
        """Read one file and cut it."""
        waveform = _read(self.audio / row.file, row.file, size.sample_rate)
        if len(waveform) < round(MIN_SECONDS * size.sample_rate):
            raise UnusableClip(row.file, "too short")
        cutting = self._cutting(row)
        kept: list[Window] = []
        dropped: Counter[str] = Counter()
        for number, start in enumerate(range(0, len(waveform), size.sound_samples)):
            sound = waveform[start : start + size.sound_samples]
            if start and len(sound) < round(MIN_REMAINDER_SECONDS * size.sample_rate):
                dropped["short remainder"] += 1
            elif (sound - sound.mean()).abs().max() < SILENCE:
                dropped["silent"] += 1
            elif cutting == "all":
                kept.append(_window(row, f"{row.id}-w{number:03d}", sound, start, size))
            else:
                kept.append(_window(row, row.id, sound, start, size))
                break
        if not kept:
            raise UnusableClip(row.file, "silent")
        return Windows(kept, dropped, hashlib.sha256(waveform.numpy().tobytes()).hexdigest()[:32])

    def _cutting(self, row: Row) -> str:
        if self.windows == "random":
            return "all" if row.split == "train" else "first"
        return self.windows


def clip_ids(files: Sequence[str]) -> list[str]:
    """A unique, safe name for each row: its file's stem, with its folders where the stem alone is not unique.

    Names that differ only in upper and lower case are made different, because some file systems don't tell them apart.
    The second row of a file, with another caption, gets `-c1` at the end of its name, and so on.
    """
    distinct = list(dict.fromkeys(files))
    stems = [_safe(PurePosixPath(file).stem) for file in distinct]
    count = Counter(stem.casefold() for stem in stems)
    names = [
        stem if count[stem.casefold()] == 1 else _safe("__".join(PurePosixPath(file).with_suffix("").parts))
        for stem, file in zip(stems, distinct, strict=True)
    ]
    name_of = dict(zip(distinct, names, strict=True))
    repeats: Counter[str] = Counter()
    ids = []
    for file in files:
        ids.append(f"{name_of[file]}-c{repeats[file]}" if repeats[file] else name_of[file])
        repeats[file] += 1
    taken: dict[str, list[int]] = defaultdict(list)
    for place, id in enumerate(ids):
        taken[id.casefold()].append(place)
    for places in taken.values():
        for place in places if len(places) > 1 else ():
            ids[place] += f"-{hash_text(files[place])}"
    return ids


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip(".-")[:MAX_ID_LENGTH] or "clip"


def _window(row: Row, id: str, sound: Tensor, start: int, size: ClipSize) -> Window:
    clip = ClipRow(id, row.file, row.caption, row.split, len(sound) / size.sample_rate, start / size.sample_rate)
    return Window(clip, fit_length(normalise(sound), size.samples))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _read(path: Path, file: str, sample_rate: int) -> Tensor:
    """Read a sound; a sound that can't be used raises `UnusableClip` with the reason in one word."""
    if not path.is_file():
        raise UnusableClip(file, "missing")
    try:
        return read_audio(path, sample_rate)
    except AudioError as error:
        # A decoder's own complaint is the cause; the checks of what it returned have none.
        if error.__cause__ is not None:
            raise UnusableClip(file, "unreadable") from error
        reason = "empty" if soundfile.info(path).frames == 0 else "non-finite"
        raise UnusableClip(file, reason) from error

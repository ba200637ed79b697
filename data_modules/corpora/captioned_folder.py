"""A captioned folder of sounds as the source of a store."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import soundfile
from torch import Tensor

from data_modules.captions.published import read_excluded, read_table
from data_modules.corpora.base import Row, Source, UnusableClip, Window, Windows
from data_modules.store.store import ClipRow
from mntp.audio.files import AudioError, read_audio
from mntp.audio.log_mel import SAMPLE_RATE, fit_length, normalise

Cutting = Literal["first", "all", "random"]
CUTTINGS: tuple[Cutting, ...] = ("first", "all", "random")
# A last window with less sound than one time slice of a token is dropped.
MIN_REMAINDER = 2560
# A whole sound shorter than half an analysis window (32 ms) has no spectrum to speak of.
MIN_SAMPLES = 512
# Peak around the mean, about three steps of 16 bits, up to which a window counts as silent.
SILENCE = 1e-4
MAX_ID_LENGTH = 100


class CaptionedFolder(Source):
    """A folder of sounds with a captions table, cut into windows.

    A window is normalised over its sound and then padded with zeros. Silent windows are dropped; so is a last one
    with less than 0.16 s, unless it is the only one.

    Args:
        captions: the table, see `read_table`.
        audio: the folder that the table's files lie in.
        windows: `first` cuts a longer sound to its first window that is not silent, `all` into all of them; `random`
            does so for the training split (`first` for the others), and training hears one of a sound's windows in
            each epoch, drawn anew.
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
        """Hashes of the table's rows and of the files' sizes, and the way of cutting; not where they lie."""
        rows = [(row.file, row.caption, row.split) for row in self.rows]
        sizes = [_size(self.audio / row.file) for row in self.rows]
        return {
            "kind": "captioned folder",
            "captions": hashlib.sha256(repr(rows).encode()).hexdigest()[:12],
            "file_sizes": hashlib.sha256(repr(sizes).encode()).hexdigest()[:12],
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

    def read(self, row: Row, samples: int) -> Windows:
        """Read one file and cut it."""
        waveform = _read(self.audio / row.file, row.file)
        if len(waveform) < MIN_SAMPLES:
            raise UnusableClip(row.file, "too short")
        cutting = self._cutting(row)
        kept: list[Window] = []
        dropped: Counter[str] = Counter()
        for number, start in enumerate(range(0, len(waveform), samples)):
            sound = waveform[start : start + samples]
            if start and len(sound) < MIN_REMAINDER:
                dropped["short remainder"] += 1
            elif (sound - sound.mean()).abs().max() < SILENCE:
                dropped["silent"] += 1
            elif cutting == "all":
                kept.append(_window(row, f"{row.id}-w{number:03d}", sound, start, samples))
            else:
                kept.append(_window(row, row.id, sound, start, samples))
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

    Names differ in more than upper and lower case, because not every file system tells those apart. The second row
    of a file, with another caption, has `-c1` behind its name, and so on.
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
            ids[place] += f"-{hashlib.sha256(files[place].encode()).hexdigest()[:12]}"
    return ids


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip(".-")[:MAX_ID_LENGTH] or "clip"


def _window(row: Row, id: str, sound: Tensor, start: int, samples: int) -> Window:
    clip = ClipRow(id, row.file, row.caption, row.split, len(sound) / SAMPLE_RATE, start / SAMPLE_RATE)
    return Window(clip, fit_length(normalise(sound), samples))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _read(path: Path, file: str) -> Tensor:
    """Read a sound, or say in one word why it can't be used."""
    if not path.is_file():
        raise UnusableClip(file, "missing")
    try:
        return read_audio(path)
    except AudioError as error:
        # A decoder's own complaint is the cause; the checks of what it returned have none.
        if error.__cause__ is not None:
            raise UnusableClip(file, "unreadable") from error
        reason = "empty" if soundfile.info(path).frames == 0 else "non-finite"
        raise UnusableClip(file, reason) from error

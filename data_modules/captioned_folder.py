"""A captioned folder of sounds as the source of a store."""

import hashlib
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import soundfile
from torch import Tensor

from data_modules.captions import read_captions
from data_modules.sources import Row, Source, UnusableClip, Window, Windows
from data_modules.store import ClipRow
from mntp.audio import SAMPLE_RATE, AudioError, fit_length, normalise, read_audio

# A last window with less sound than one time slice of a token is dropped.
MIN_REMAINDER = 2560
# Peak around the mean, about three steps of 16 bits, up to which a window counts as silent.
SILENCE = 1e-4
MAX_ID_LENGTH = 100


class CaptionedFolder(Source):
    """A folder of sounds with a captions table, cut into windows.

    A window is normalised over its sound and then padded with zeros. Silent windows are dropped; so is a last one
    with less than 0.16 s, unless it is the only one.

    Args:
        captions: the table, see `read_captions`.
        audio: the folder that the table's files lie in.
        windows: `first` cuts a longer sound to its first window that is not silent, `all` into all of them.

    Raises:
        ValueError: the table is wrong (see `read_captions`), or `windows` is unknown.
    """

    def __init__(self, captions: Path, audio: Path, windows: Literal["first", "all"] = "first") -> None:
        if windows not in ("first", "all"):
            raise ValueError(f"windows: got {windows!r}, expected 'first' or 'all'")
        self.captions = captions
        self.audio = audio
        self.windows = windows
        table = read_captions(captions, audio)
        self._caption_of = {row.file: row.caption for row in table}
        ids = clip_ids(list(self._caption_of))
        self.rows = [Row(id, row.file, row.split) for id, row in zip(ids, table, strict=True)]

    def settings(self) -> dict[str, Any]:
        """Hashes of the table's rows and of the files' sizes, and the way of cutting; not where they lie."""
        rows = [(row.file, self._caption_of[row.file], row.split) for row in self.rows]
        sizes = [_size(self.audio / row.file) for row in self.rows]
        return {
            "kind": "captioned folder",
            "captions": hashlib.sha256(repr(rows).encode()).hexdigest()[:12],
            "file_sizes": hashlib.sha256(repr(sizes).encode()).hexdigest()[:12],
            "windows": self.windows,
        }

    def read(self, row: Row, samples: int) -> Windows:
        """Read one file and cut it."""
        waveform = _read(self.audio / row.file, row.file)
        kept: list[Window] = []
        dropped: Counter[str] = Counter()
        for number, start in enumerate(range(0, len(waveform), samples)):
            sound = waveform[start : start + samples]
            if start and len(sound) < MIN_REMAINDER:
                dropped["short remainder"] += 1
            elif (sound - sound.mean()).abs().max() < SILENCE:
                dropped["silent"] += 1
            elif self.windows == "all":
                kept.append(self._window(row, f"{row.id}-w{number:03d}", sound, start, samples))
            else:
                kept.append(self._window(row, row.id, sound, start, samples))
                break
        if not kept:
            raise UnusableClip(row.file, "silent")
        return Windows(kept, dropped)

    def _window(self, row: Row, id: str, sound: Tensor, start: int, samples: int) -> Window:
        caption = self._caption_of[row.file]
        clip = ClipRow(id, row.file, caption, row.split, len(sound) / SAMPLE_RATE, start / SAMPLE_RATE)
        return Window(clip, fit_length(normalise(sound), samples))


def clip_ids(files: list[str]) -> list[str]:
    """A unique, safe name for each file: its stem, with its folders where the stem alone is not unique.

    Names differ in more than upper and lower case, because not every file system tells those apart.
    """
    stems = [_safe(PurePosixPath(file).stem) for file in files]
    count = Counter(stem.casefold() for stem in stems)
    ids = [
        stem if count[stem.casefold()] == 1 else _safe("__".join(PurePosixPath(file).with_suffix("").parts))
        for stem, file in zip(stems, files, strict=True)
    ]
    count = Counter(id.casefold() for id in ids)
    return [
        id if count[id.casefold()] == 1 else f"{id}-{hashlib.sha256(file.encode()).hexdigest()[:12]}"
        for id, file in zip(ids, files, strict=True)
    ]


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip(".-")[:MAX_ID_LENGTH] or "clip"


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

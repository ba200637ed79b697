"""The interface of a corpus: rows of sounds with captions, which are read one by one into clips."""

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from data_modules.store.clips import ClipRow


@dataclass(frozen=True)
class Row:
    """One sound with its caption, not yet read.

    Attributes:
        id: unique, safe as a file name.
        file: the source's name of the sound; several rows may caption one sound.
        split: `train`, `val` or `test`.
        caption: what is heard; empty where reading tells it.
        corpus: name of the corpus, where a source has several.
    """

    id: str
    file: str
    split: str
    caption: str = ""
    corpus: str = ""


@dataclass(frozen=True)
class ClipSize:
    """Length of every clip of a store.

    Attributes:
        samples: of the waveform.
        sample_rate: in Hz; sounds are resampled to it.
        sound_samples: of sound, at most; the rest of a clip is silence.
    """

    samples: int
    sample_rate: int
    sound_samples: int


@dataclass(frozen=True)
class Window:
    """A clip of the store: its row of `clips.csv`, and the waveform to be encoded.

    Attributes:
        clip: id, file, caption, split, seconds, start.
        waveform: [samples] float32, normalised, then padded with zeros.
    """

    clip: ClipRow
    waveform: Tensor


@dataclass(frozen=True)
class Windows:
    """The windows of one sound.

    Attributes:
        kept: in order, at least one.
        dropped: how many others were left out, by reason.
        content: hash of the whole sound, to find it under other names; empty where it has none.
    """

    kept: list[Window]
    dropped: Counter[str] = field(default_factory=Counter)
    content: str = ""


@dataclass(frozen=True)
class Finding:
    """What the first reading of a row found.

    Attributes:
        reason: why it can't be used; empty if it can.
        windows: how many clips it gives.
        dropped: how many others were left out, by reason.
        content: as in `Windows`.
    """

    reason: str = ""
    windows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    content: str = ""


class UnusableClip(ValueError):  # noqa: N818  # a finding about the data, reported with others
    """A row whose sound can't be used.

    Attributes:
        file: as in the table.
        reason: `missing`, `unreadable`, `empty`, `non-finite`, `too short`, `silent` or `duplicate`.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class Source(ABC):
    """Rows in a fixed order, each of which can be read into clips."""

    rows: Sequence[Row]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that decides the clips, as plain JSON values: equal settings give equal clips."""

    @abstractmethod
    def stamp(self, row: Row) -> Any:
        """What decides a row's clips beside the row itself, as plain JSON values, without reading the sound."""

    @abstractmethod
    def read(self, row: Row, size: ClipSize) -> Windows:
        """Read one row into one or more windows of `size`.

        Raises:
            UnusableClip: there is no usable sound.
        """

    def inspect(self, row: Row, size: ClipSize) -> Finding:
        """Read a row, and return what it gives."""
        try:
            windows = self.read(row, size)
        except UnusableClip as problem:
            return Finding(problem.reason)
        return Finding("", len(windows.kept), dict(sorted(windows.dropped.items())), windows.content)

    def reading(self) -> dict[str, Any]:
        """How training draws clips, unless it takes each of them once an epoch (see `epoch_order.Draws`)."""
        return {}

    def limit(self, num_rows: int) -> None:
        """Keep only `num_rows` rows, spread evenly over all of them, for a trial.

        Raises:
            ValueError: `num_rows` is below 1.
        """
        if num_rows < 1:
            raise ValueError(f"limit is {num_rows}; expected at least 1 row")
        count = min(num_rows, len(self.rows))
        self.rows = [self.rows[place * len(self.rows) // count] for place in range(count)]


def rename(window: Window, file: str) -> Window:
    """The same window under another name of its sound."""
    return Window(dataclasses.replace(window.clip, file=file), window.waveform)

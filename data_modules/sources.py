"""What a store is made of: rows of sounds, read one by one into windows."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from data_modules.store import ClipRow


@dataclass(frozen=True)
class Row:
    """One sound, not yet read.

    Attributes:
        id: unique, safe as a file name.
        file: the source's name of it.
        split: `train`, `val` or `test`.
    """

    id: str
    file: str
    split: str


@dataclass(frozen=True)
class Window:
    """A clip of the store: its row of `clips.csv`, and what the tokenizer hears.

    Attributes:
        clip: id, file, caption, split, seconds, start.
        waveform: [samples] float32, normalised, then padded with zeros.
    """

    clip: ClipRow
    waveform: Tensor


@dataclass(frozen=True)
class Windows:
    """The windows of one sound, and how many of its others were dropped, by reason."""

    kept: list[Window]
    dropped: Counter[str]


class UnusableClip(ValueError):  # noqa: N818  # a finding about the data, reported with others
    """A row whose sound can't be used.

    Attributes:
        file: as in the table.
        reason: `missing`, `unreadable`, `empty`, `non-finite` or `silent`.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class Source(ABC):
    """Rows in a fixed order, each of which can be read into windows."""

    rows: Sequence[Row]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides the clips, as plain JSON values: equal settings, equal clips."""

    @abstractmethod
    def read(self, row: Row, samples: int) -> Windows:
        """Read one row into windows of `samples` samples, at least one.

        Raises:
            UnusableClip: there is no usable sound.
        """

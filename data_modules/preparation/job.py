"""One preparation: what is to be prepared, with what, where; and the pieces of work that processes share."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_modules.corpora.base import ClipSize, Source
from data_modules.preparation.findings import Part, Survey
from data_modules.preparation.settings import is_prepared, stamp, store_settings
from data_modules.preparation.work_queue import Piece, name_piece, share
from data_modules.store.store import INDEX
from mntp.text.base import TextEncoder
from mntp.tokenizers.base import Tokenizer


class StoreFinishedError(Exception):
    """Another process has finished the store in the meantime."""


@dataclass
class Job:
    """The preparation of one store; arguments as of `prepare_store`. It can be sent to another process.

    Attributes:
        folder: of the pieces of work, beside the store.
        size: of every clip.
        settings: all that decides the store's content.

    Raises:
        ValueError: `seconds` does not fill whole frames, `sound_seconds` is longer, or there are fewer than one
            process.
    """

    source: Source
    tokenizer: Tokenizer
    text_encoder: TextEncoder
    out: Path
    seconds: float
    allow_missing: bool
    overwrite: bool
    processes: int
    device: str
    threads: int
    sound_seconds: float | None = None
    folder: Path = field(init=False)
    size: ClipSize = field(init=False)
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"got {self.processes} processes; expected at least 1")
        self.tokenizer.to("cpu")  # to be sent to others; each process moves it to its own device
        self.folder = self.out.with_name(f".{self.out.name}.work")
        sample_rate = self.tokenizer.layout.sample_rate
        sound_seconds = self.seconds if self.sound_seconds is None else self.sound_seconds
        if not 0 < sound_seconds <= self.seconds:
            raise ValueError(
                f"sound_seconds is {sound_seconds}; expected more than 0 and at most seconds, {self.seconds}"
            )
        self.size = ClipSize(round(self.seconds * sample_rate), sample_rate, round(sound_seconds * sample_rate))
        self.tokenizer.num_tokens(self.size.samples)
        self.settings = store_settings(
            self.source, self.tokenizer, self.text_encoder, self.seconds, self.allow_missing, self.sound_seconds
        )
        self._replaced = stamp(self.out / INDEX)

    def is_done(self) -> bool:
        """Whether the store that is asked for is there.

        Raises:
            ValueError: something else is there.
        """
        return is_prepared(self.out, self.settings, self.overwrite and not self._was_replaced())

    def piece(self, kind: str, number: int, num_items: int, decides: Any) -> Piece:
        """Name a piece of work after all that decides its content, and the size of the clips."""
        return name_piece(self.folder, kind, number, num_items, [dataclasses.astuple(self.size), decides])

    def share(
        self,
        pieces: Sequence[Piece],
        do: Callable[[int], Any],
        worker: tuple[int, int] = (0, 1),
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Do pieces as `work_queue.share` does, as long as no other process has finished the store.

        Raises:
            StoreFinishedError: another process has.
        """

        def do_if_needed(place: int) -> Any:
            if self._was_replaced():
                raise StoreFinishedError
            return do(place)

        share(pieces, do_if_needed, worker, done)

    def content(self, survey: Survey, parts: Sequence[Part]) -> list[Any]:
        """What decides the clips of some parts, as plain JSON values: their rows, and the sounds or their stamps."""
        content = []
        for part in parts:
            row, finding = self.source.rows[part.place], survey.findings[part.place]
            sound = finding.content or self.source.stamp(row)
            content.append([dataclasses.astuple(row), part.first, part.last, sound])
        return content

    def _was_replaced(self) -> bool:
        """Whether the store's index is another one than when this job began."""
        return self._replaced != stamp(self.out / INDEX)

"""Pieces of work, each done once by any number of processes, on any number of machines that share one folder.

A piece is named after a hash of everything that decides its content, so that a piece of other settings or other
sounds is never taken for it. Its result is JSON, written whole when the piece is done; files beside it have its name.
The process that works on it holds its lock (`mntp.io.locks`). A killed process loses the lock, and another one takes
the piece.
"""

import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mntp.io.files import atomic_write
from mntp.io.fingerprint import hash_json
from mntp.io.locks import claimed

POLL_SECONDS = 0.2
AGAIN = "it was removed: run the same command again, it alone is made anew"


class ParentGone(SystemExit):
    """The process that started this one was killed."""


@dataclass(frozen=True)
class Piece:
    """One piece of work.

    Attributes:
        path: of its result.
        size: for the progress bar.
    """

    path: Path
    size: int

    @property
    def stem(self) -> Path:
        """The common beginning of the names of its other files."""
        return self.path.with_suffix("")

    def result(self) -> Any:
        """Its result.

        Raises:
            ValueError: the file was removed or altered.
        """
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError) as error:
            self.path.unlink(missing_ok=True)
            raise ValueError(f"{self.path}: altered on disk ({error}); {AGAIN}") from error

    def finish(self, result: Any) -> None:
        """Record that it is done."""
        with atomic_write(self.path) as file:
            json.dump(result, file)


def name_piece(folder: Path, kind: str, number: int, size: int, decides: Any) -> Piece:
    """Name a piece after all that decides its content (plain JSON values)."""
    return Piece(folder / f"{kind}-{number:05d}-{hash_json(decides)}.json", size)


def share(
    pieces: Sequence[Piece],
    do: Callable[[int], Any],
    worker: tuple[int, int] = (0, 1),
    done: Callable[[int], None] = lambda _: None,
) -> None:
    """Do the pieces that no other process has done or is doing, then wait for those of the others.

    Args:
        pieces: all of them, in an existing folder.
        do: does the piece at a place and returns its result.
        worker: number of this process, and how many there are; decides which piece it tries first.
        done: called with the size of each piece that others have done.

    Raises:
        OSError: the disk is full or can't be written.
    """
    first = len(pieces) * worker[0] // max(1, worker[1])
    waiting = [(place + first) % len(pieces) for place in range(len(pieces))]
    while waiting:
        left = []
        for place in waiting:
            _check_parent()
            piece = pieces[place]
            if piece.path.is_file():
                done(piece.size)
                continue
            with claimed(piece.stem.with_suffix(".lock")) as mine:
                if not mine:
                    left.append(place)
                elif piece.path.is_file():
                    done(piece.size)
                else:
                    piece.finish(do(place))
        if len(left) == len(waiting):
            time.sleep(POLL_SECONDS)
        waiting = left


@contextlib.contextmanager
def helpers(target: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> Iterator[None]:
    """Run `target` in further processes, one for each tuple of arguments, while the block runs; then wait for them.

    Their errors are not reported: the block does what they left undone, and meets the same errors. When the block
    fails, they are terminated.
    """
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_quietly, args=(target, each), daemon=True) for each in arguments]
    for process in processes:
        process.start()
    try:
        yield
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _quietly(target: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(ValueError, OSError, MemoryError, KeyboardInterrupt, ParentGone):
        target(*arguments)


def _check_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise ParentGone

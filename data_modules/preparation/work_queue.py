"""A piece of work done once by any number of processes, on any number of machines that see one folder.

A piece is named after a hash of everything that decides its content, so that a piece of other settings or other
sounds is never taken for it. Its result is JSON, written whole when the piece is done; files beside it carry its name.
Who works on it holds a lock on it; a killed worker loses the lock and another one takes the piece.
"""

import contextlib
import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mntp.io.files import atomic_write
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
        """What the names of its other files begin with."""
        return self.path.with_suffix("")

    def result(self) -> Any:
        """What it gave.

        Raises:
            ValueError: the file was removed or altered.
        """
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError) as error:
            self.path.unlink(missing_ok=True)
            raise ValueError(f"{self.path}: altered on disk ({error}); {AGAIN}") from error

    def finish(self, result: Any) -> None:
        """Write down that it is done."""
        with atomic_write(self.path) as file:
            json.dump(result, file)


def name_piece(folder: Path, kind: str, number: int, size: int, decides: Any) -> Piece:
    """Name a piece after all that decides its content (plain JSON values)."""
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    return Piece(folder / f"{kind}-{number:05d}-{digest}.json", size)


def share(
    pieces: Sequence[Piece],
    do: Callable[[int], Any],
    worker: tuple[int, int] = (0, 1),
    done: Callable[[int], None] = lambda _: None,
) -> None:
    """Do the pieces that nobody has done or is doing, and wait for those that others do.

    Args:
        pieces: all of them, in an existing folder.
        do: does the piece at a place and returns its result.
        worker: number of this one and how many there are; decides which piece it looks at first.
        done: called with the size of each piece that was found to be done by others.

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
def helpers(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> Iterator[None]:
    """Run `target` in further processes, one for each tuple of arguments, while the block runs; then wait for them.

    What goes wrong in them is not reported: they only take work off the block's hands, which meets it again. When the
    block fails, they are ended.
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


def _quietly(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(ValueError, OSError, MemoryError, KeyboardInterrupt, ParentGone):
        target(*arguments)


def _check_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise ParentGone

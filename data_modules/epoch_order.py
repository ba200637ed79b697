"""The order of training clips: a pure function of (seed, epoch, rank, position), so that a resume is exact."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from data_modules.store.store import Store

Places = NDArray[np.int64]


def epoch_order(seed: int, epoch: int, num_clips: int) -> Places:
    """Permutation of `num_clips` positions for one epoch, int64 [num_clips].

    Sorts raw PCG64 words: NumPy promises that stream never changes, which it doesn't for `permutation`.

    Raises:
        ValueError: `seed` or `epoch` is negative.
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(num_clips)
    return np.argsort(words, kind="stable")


class Drawing(Protocol):
    """Which clips an epoch has, before they are ordered; a clip may come several times. Their number never changes."""

    @property
    def num_draws(self) -> int:
        """How many clips an epoch has."""

    def epoch(self, seed: int, epoch: int) -> Places:
        """Positions of the clips, int64 [num_draws]."""


@dataclass(frozen=True)
class EachOnce:
    """Every one of `num_draws` clips once an epoch."""

    num_draws: int

    def epoch(self, seed: int, epoch: int) -> Places:
        """All positions."""
        return np.arange(self.num_draws)


class Draws:
    """Clips of corpora with weights, of which some give one window of each sound an epoch.

    A corpus of n sounds (or clips) and weight w is drawn round(w n) times an epoch. Epochs read consecutive blocks of
    an infinite sequence of permutations, so counts per sound never differ by more than one, at any weight. With
    `one_window`, one window of each drawn sound is drawn anew each time.

    Args:
        corpora: for each, the weight and the clips' positions: a list for each sound, of all its windows, where one of
            them is drawn; a list for each clip otherwise.

    Raises:
        ValueError: an epoch has no clips.
    """

    def __init__(self, corpora: Sequence[tuple[float, Sequence[Sequence[int]]]]) -> None:
        self._corpora = [
            (round(weight * len(sounds)), np.array([len(sound) for sound in sounds]), np.concatenate(sounds))
            for weight, sounds in corpora
            if len(sounds)
        ]
        self.num_draws = sum(count for count, _, _ in self._corpora)
        if self.num_draws == 0:
            raise ValueError("an epoch has no training clips: expected some clips and larger weights")

    @classmethod
    def of(cls, store: Store, rows: Sequence[int]) -> Drawing:
        """The draws that a store asks for; positions are those of its clips in `rows`."""
        reading = store.index.get("reading")
        if reading is None:
            return EachOnce(len(rows))
        place_of = {row: place for place, row in enumerate(rows)}
        corpora = []
        first = 0
        for corpus in reading["corpora"]:
            here = [row for row in range(first, first + corpus["clips"]) if row in place_of]
            sounds: dict[object, list[int]] = {}
            for row in here:
                clip = store.clips[row]
                sounds.setdefault((clip.file, clip.caption) if corpus["one_window"] else row, []).append(place_of[row])
            corpora.append((corpus["weight"], list(sounds.values())))
            first += corpus["clips"]
        return cls(corpora)

    def epoch(self, seed: int, epoch: int) -> Places:
        """Positions of the clips, int64 [num_draws], corpus by corpus."""
        return np.concatenate([self._draw(seed, epoch, number) for number in range(len(self._corpora))])

    def _draw(self, seed: int, epoch: int, number: int) -> Places:
        """Draws of one corpus: a block of `count` of its sequence, sorted by sound."""
        count, windows, places = self._corpora[number]
        num_sounds = len(windows)
        begin, end = epoch * count, (epoch + 1) * count
        rounds = range(begin // num_sounds, -(-end // num_sounds))
        # Keys of their own make these permutations independent of the order within an epoch.
        stream = np.concatenate([epoch_order(seed, _round_key(number, each), num_sounds) for each in rounds])
        sounds = np.sort(stream[begin - rounds[0] * num_sounds :][:count])
        words = np.random.PCG64(np.random.SeedSequence([seed, epoch, number, 1])).random_raw(count)
        starts = np.cumsum(windows) - windows
        return places[starts[sounds] + (words % windows[sounds].astype(np.uint64)).astype(np.int64)]


def _round_key(number: int, each: int) -> int:
    """The key of a corpus' permutation, which no epoch's order uses."""
    return (1 << 62) + (number << 40) + each


class ResumableOrder(DistributedSampler[int]):
    """Yields an epoch's number of this rank's clips, from where training has got to.

    Training reads an infinite sequence of batches: the draws of one epoch after the other, in the order of
    `epoch_order`, each without its last, incomplete global batch. A global batch is `batch_size * world_size`
    consecutive clips, dealt out to the ranks in turn, so that a step has the same clips at any number of ranks if the
    global batch is equal. Each iteration begins at the trainer's own count of batches, which its checkpoints hold; this
    makes a resume exact from any checkpoint.

    It subclasses `DistributedSampler` only so that Lightning doesn't replace it. `set_epoch` has no effect.

    Args:
        draws: which clips of the split each epoch has; a number n means each of n clips once.
        batch_size: clips of one batch on one rank.
        seed: of the order.
        rank: this process, 0 <= rank < world_size.
        world_size: number of processes.
        batches_done: tells how many batches each rank has trained on so far, over all epochs.

    Raises:
        ValueError: an epoch has fewer clips than one global batch.
    """

    def __init__(
        self,
        draws: Drawing | int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        batches_done: Callable[[], int] = lambda: 0,
    ) -> None:
        self.draws = EachOnce(draws) if isinstance(draws, int) else draws
        self.num_clips = self.draws.num_draws
        # The base class uses only the length of its data set.
        clips: Any = range(self.num_clips)
        super().__init__(clips, num_replicas=world_size, rank=rank, seed=seed, drop_last=True)
        self.batches_per_epoch = self.num_clips // (batch_size * world_size)
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"the training split has {self.num_clips} clips, fewer than one batch of {batch_size * world_size} "
                f"(batch_size {batch_size} x {world_size} processes): choose a smaller batch_size"
            )
        self.batch_size = batch_size
        self.batches_done = batches_done

    def __len__(self) -> int:
        return self.batches_per_epoch * self.batch_size

    def __iter__(self) -> Iterator[int]:
        epoch, batch = divmod(self.batches_done(), self.batches_per_epoch)
        # Of a resumed epoch Lightning takes only the rest, but it counts the batches before the resume, so that the
        # length must be that of a whole epoch.
        yield from self._clips(epoch)[batch * self.batch_size :]
        yield from self._clips(epoch + 1)[: batch * self.batch_size]

    def _clips(self, epoch: int) -> list[int]:
        """This rank's clips of an epoch."""
        order = epoch_order(self.seed, epoch, self.num_clips)[: len(self) * self.num_replicas]
        return self.draws.epoch(self.seed, epoch)[order[self.rank :: self.num_replicas]].tolist()

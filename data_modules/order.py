"""The order of training clips: a pure function of (seed, epoch, rank, position), so that a resume is exact."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler


def epoch_order(seed: int, epoch: int, num_clips: int) -> NDArray[np.int64]:
    """Permutation of `num_clips` positions for one epoch, int64 [num_clips].

    Sorts raw PCG64 words: NumPy promises that stream never changes, which it doesn't for `permutation`.

    Raises:
        ValueError: `seed` or `epoch` is negative.
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(num_clips)
    return np.argsort(words, kind="stable")


@dataclass(frozen=True)
class Position:
    """Where training stands: `batches` of `epoch` are done, on every rank."""

    epoch: int = 0
    batches: int = 0


class EpochOrder(DistributedSampler[int]):
    """Yields this rank's clips of an epoch, from `start` on in `start`'s own epoch.

    Global batch k of an epoch is the k-th run of `batch_size * world_size` clips of `epoch_order`, dealt out to
    the ranks in turn; the last, incomplete global batch is dropped. So the same clips meet in a step at any
    number of ranks, as long as the global batch is the same.

    It is a `DistributedSampler` in name so that Lightning tells it the epoch and leaves it in its place. Its
    length is always that of a whole epoch: Lightning counts the batches before `start` as done already.

    Args:
        num_clips: clips of the split.
        batch_size: clips of one batch on one rank.
        seed: of the order.
        rank: this process, 0 <= rank < world_size.
        world_size: number of processes.
        start: where to go on after a resume.

    Raises:
        ValueError: the split has fewer clips than one global batch.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: Position = Position(),
    ) -> None:
        # The base class takes no more from its data set than the length.
        clips: Any = range(num_clips)
        super().__init__(clips, num_replicas=world_size, rank=rank, seed=seed, drop_last=True)
        if num_clips < batch_size * world_size:
            raise ValueError(
                f"the training split has {num_clips} clips, fewer than one batch of {batch_size * world_size} "
                f"(batch_size {batch_size} x {world_size} processes): choose a smaller batch_size"
            )
        self.num_clips = num_clips
        self.batch_size = batch_size
        self.start = start
        # Lightning builds the first iterator, whose workers fetch ahead, before it calls set_epoch.
        self.set_epoch(start.epoch)

    def __len__(self) -> int:
        return self.num_clips // (self.batch_size * self.num_replicas) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        whole_batches = len(self) * self.num_replicas
        mine = epoch_order(self.seed, self.epoch, self.num_clips)[:whole_batches][self.rank :: self.num_replicas]
        done = self.start.batches if self.epoch == self.start.epoch else 0
        yield from mine[done * self.batch_size :].tolist()

"""The order of training clips: a pure function of (seed, epoch, rank, position), so that a resume is exact."""

from collections.abc import Callable, Iterator
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


class ResumableOrder(DistributedSampler[int]):
    """Yields this rank's clips, one epoch's number of them, from wherever training has got to.

    Training runs through an endless stream of batches: epoch after epoch of `epoch_order`, each without its last,
    incomplete global batch. A global batch is a run of `batch_size * world_size` clips, dealt out to the ranks in
    turn, so that the same clips meet in a step at any number of ranks, as long as the global batch is the same.
    The place in the stream is asked for whenever an iteration begins; it is the trainer's own count of batches,
    which its checkpoints hold. So a resume is exact from any checkpoint, and nothing else need be remembered.

    It is a `DistributedSampler` in name so that Lightning leaves it in its place. `set_epoch` has no effect.

    Args:
        num_clips: clips of the split.
        batch_size: clips of one batch on one rank.
        seed: of the order.
        rank: this process, 0 <= rank < world_size.
        world_size: number of processes.
        batches_done: tells how many batches each rank has trained on so far, over all epochs.

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
        batches_done: Callable[[], int] = lambda: 0,
    ) -> None:
        # The base class takes no more from its data set than the length.
        clips: Any = range(num_clips)
        super().__init__(clips, num_replicas=world_size, rank=rank, seed=seed, drop_last=True)
        self.batches_per_epoch = num_clips // (batch_size * world_size)
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"the training split has {num_clips} clips, fewer than one batch of {batch_size * world_size} "
                f"(batch_size {batch_size} x {world_size} processes): choose a smaller batch_size"
            )
        self.num_clips = num_clips
        self.batch_size = batch_size
        self.batches_done = batches_done

    def __len__(self) -> int:
        return self.batches_per_epoch * self.batch_size

    def __iter__(self) -> Iterator[int]:
        epoch, batch = divmod(self.batches_done(), self.batches_per_epoch)
        # Of an epoch that is resumed, Lightning takes the rest alone; the length must be a whole epoch's all the
        # same, because it counts the batches that were done before.
        yield from self._clips(epoch)[batch * self.batch_size :]
        yield from self._clips(epoch + 1)[: batch * self.batch_size]

    def _clips(self, epoch: int) -> list[int]:
        """This rank's clips of an epoch."""
        clips = epoch_order(self.seed, epoch, self.num_clips)[: len(self) * self.num_replicas]
        return clips[self.rank :: self.num_replicas].tolist()

from itertools import chain

import numpy as np
import pytest
from torch.utils.data import DataLoader

from data_modules.order import ResumableOrder, epoch_order


def batches(order: ResumableOrder) -> list[list[int]]:
    loader = DataLoader(range(order.num_clips), order.batch_size, sampler=order, collate_fn=list)  # type: ignore[arg-type]  # a range is a dataset
    return list(loader)


def test_an_epoch_is_a_permutation_that_seed_and_epoch_alone_decide() -> None:
    order = epoch_order(3, 5, 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert np.array_equal(order, epoch_order(3, 5, 1000))
    assert not np.array_equal(order, epoch_order(3, 6, 1000))
    assert not np.array_equal(order, epoch_order(4, 5, 1000))
    # Frozen: with another order, an interrupted training would go on with clips that it has seen.
    assert epoch_order(0, 0, 8).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


def test_every_place_is_equally_likely() -> None:
    places = np.stack([epoch_order(0, epoch, 5) for epoch in range(4000)])
    counts = np.stack([np.bincount(column, minlength=5) for column in places.T])
    assert np.abs(counts - 800).max() < 5 * np.sqrt(800)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_batches_are_the_same_for_any_number_of_ranks(world_size: int) -> None:
    ranks = [batches(ResumableOrder(50, 8 // world_size, 0, rank, world_size)) for rank in range(world_size)]
    together = [sorted(chain(*parts)) for parts in zip(*ranks, strict=True)]
    alone = [sorted(batch) for batch in batches(ResumableOrder(50, 8, 0))]
    assert together == alone
    assert len(alone) == 6
    assert len(set(chain(*alone))) == 48


@pytest.mark.parametrize("done", [0, 1, 5, 6, 7, 20])
def test_an_iteration_goes_on_where_training_has_got_to(done: int) -> None:
    stream = [
        batch for epoch in range(6) for batch in batches(ResumableOrder(50, 8, 0, batches_done=lambda e=epoch: 6 * e))
    ]
    assert len({tuple(batch) for batch in stream}) == 36
    order = ResumableOrder(50, 8, 0, batches_done=lambda: done)
    assert len(order) == 48
    order.set_epoch(3)
    assert batches(order) == stream[done : done + 6]


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"7 clips, fewer than one batch of 8 \(batch_size 4 x 2 processes\)"):
        ResumableOrder(7, 4, 0, rank=0, world_size=2)

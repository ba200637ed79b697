from itertools import chain

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from data_modules.epoch_order import Draws, ResumableOrder, epoch_order


def batches(order: ResumableOrder) -> list[list[int]]:
    loader = DataLoader(range(100), order.batch_size, sampler=order, collate_fn=list)  # type: ignore[arg-type]  # a range is a dataset
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


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_clips", [48, 53])
def test_ranks_with_workers_see_each_clip_once_an_epoch_from_wherever_they_go_on(
    world_size: int, num_clips: int
) -> None:
    batch_size = 4

    def stream(rank: int, done: int, workers: int) -> list[list[int]]:
        order = ResumableOrder(num_clips, batch_size, 5, rank, world_size, lambda: done)
        data: Dataset[int] = range(num_clips)  # type: ignore[assignment]  # a range is a dataset
        return list(DataLoader(data, batch_size, sampler=order, num_workers=workers, collate_fn=list))

    per_epoch = num_clips // (batch_size * world_size)
    whole = [list(chain(*(stream(rank, epoch * per_epoch, 0) for epoch in range(3)))) for rank in range(world_size)]
    for epoch in range(3):
        seen = list(chain(*(chain(*batches[epoch * per_epoch :][:per_epoch]) for batches in whole)))
        assert len(seen) == len(set(seen)) == per_epoch * batch_size * world_size
    for rank in range(world_size):
        for done in range(2 * per_epoch):
            assert stream(rank, done, 0) == whole[rank][done : done + per_epoch]
    for rank, done in [(0, 1), (world_size - 1, per_epoch - 1), (world_size - 1, per_epoch + 3)]:
        assert stream(rank, done, 2) == whole[rank][done : done + per_epoch]


def test_weights_say_how_often_clips_are_heard() -> None:
    first, second, third = [[n] for n in range(7)], [[n] for n in range(7, 17)], [[17], [18]]
    draws = Draws([(1.0, first), (0.3, second), (2.5, third)])
    assert draws.num_draws == 7 + 3 + 5
    heard = np.zeros(19, int)
    for epoch in range(20):
        clips = draws.epoch(0, epoch)
        assert len(clips) == 15
        assert np.array_equal(clips, draws.epoch(0, epoch))
        count = np.bincount(clips, minlength=19)
        assert count[:7].tolist() == [1] * 7
        assert count[7:17].sum() == 3
        assert count[17:].sum() == 5
        heard += count
    # 20 epochs are 6 whole rounds of the second and 50 of the third corpus: nobody is heard more often than another.
    assert heard.tolist() == [20] * 7 + [6] * 10 + [50] * 2
    assert not np.array_equal(draws.epoch(0, 0)[7:10], draws.epoch(1, 0)[7:10])


def sounds_of_epochs(num_corpora: int, num_sounds: int, num_epochs: int) -> list[list[list[int]]]:
    """By epoch and corpus, the sounds (0 to `num_sounds` - 1) that corpora of weight 0.5 give."""
    corpora = [[[corpus * num_sounds + n] for n in range(num_sounds)] for corpus in range(num_corpora)]
    draws = Draws([(0.5, sounds) for sounds in corpora])
    drawn = [draws.epoch(7, epoch).reshape(num_corpora, -1) % num_sounds for epoch in range(num_epochs)]
    return [epoch.tolist() for epoch in drawn]


def test_every_corpus_and_every_round_has_a_permutation_of_its_own() -> None:
    """Halves of 40 sounds: two epochs make a round, so epochs 0, 2, 4 begin the rounds of three permutations."""
    drawn = sounds_of_epochs(num_corpora=3, num_sounds=40, num_epochs=6)
    for epoch in (0, 2, 4):
        for corpus in range(3):
            assert sorted(drawn[epoch][corpus] + drawn[epoch + 1][corpus]) == list(range(40))
    halves = [tuple(drawn[epoch][corpus]) for epoch in (0, 2, 4) for corpus in range(3)]
    assert len(set(halves)) == 9
    orders = {tuple(sorted(epoch_order(7, epoch, 40)[:20].tolist())) for epoch in range(100)}
    assert not orders & set(halves)  # nothing to do with the order within an epoch


def test_draws_are_frozen() -> None:
    """With other draws, an interrupted training would go on with clips that it has heard in this round."""
    assert sounds_of_epochs(num_corpora=2, num_sounds=8, num_epochs=3) == [
        [[0, 2, 4, 5], [0, 1, 4, 7]],
        [[1, 3, 6, 7], [2, 3, 5, 6]],
        [[0, 1, 2, 5], [3, 4, 6, 7]],
    ]


def test_one_window_of_a_sound_is_drawn_anew_each_epoch() -> None:
    sounds = [[0], [1, 2, 3], [4, 5]]
    draws = Draws([(1.0, sounds)])
    counts = np.zeros(6, int)
    for epoch in range(600):
        clips = draws.epoch(3, epoch).tolist()
        assert [sum(clip in sound for clip in clips) for sound in sounds] == [1, 1, 1]
        counts += np.bincount(clips, minlength=6)
    assert counts[0] == 600
    assert np.abs(counts[1:4] - 200).max() < 60
    assert np.abs(counts[4:] - 300).max() < 70


def test_a_weighted_order_resumes_where_it_was() -> None:
    draws = Draws([(1.5, [[n] for n in range(11)]), (0.4, [[n] for n in range(11, 21)])])
    whole = [
        batch
        for epoch in range(4)
        for batch in batches(ResumableOrder(draws, 4, 0, batches_done=lambda e=epoch: 5 * e))
    ]
    assert draws.num_draws == 20
    for done in range(12):
        assert batches(ResumableOrder(draws, 4, 0, batches_done=lambda d=done: d)) == whole[done : done + 5]


def test_each_clip_once_is_the_order_that_it_always_was() -> None:
    weighted = ResumableOrder(Draws([(1.0, [[n] for n in range(30)])]), 5, 9)
    assert batches(weighted) == batches(ResumableOrder(30, 5, 9))


def test_an_epoch_without_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="an epoch has no training clips"):
        Draws([(0.1, [[0], [1]])])

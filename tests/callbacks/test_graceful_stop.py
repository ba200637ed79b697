"""A training that is asked to stop: all ranks at the same step, behind a saved checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest

from callbacks import GracefulStop, LastCheckpoint


class Saver(LastCheckpoint):
    """Counts instead of writing."""

    saved = 0

    def save(self, trainer: Any) -> None:
        self.saved += 1


class FakeRequest:
    made = False
    deferred = False
    listened = 0

    def listen(self) -> None:
        self.listened += 1


class Ranks:
    """Stands for a strategy of two ranks; `other` is what the other rank says."""

    def __init__(self, other: bool = False, first_step: int = 7) -> None:
        self.other, self.first_step = other, first_step

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        assert not all
        return decision or self.other

    def broadcast(self, value: int) -> int:
        return self.first_step


def trainer_of(ranks: Ranks, saver: Saver) -> Any:
    return SimpleNamespace(strategy=ranks, checkpoint_callbacks=[saver], global_step=7, global_rank=1)


@pytest.mark.parametrize(("mine", "others", "stops"), [(False, False, 0), (True, False, 1), (False, True, 1)])
def test_one_rank_that_is_asked_stops_all(mine: bool, others: bool, stops: int) -> None:
    request, saver = FakeRequest(), Saver()
    trainer, callback = trainer_of(Ranks(others), saver), GracefulStop(request, 75)
    request.made = mine
    if stops:
        with pytest.raises(SystemExit) as raised:
            callback.on_train_batch_end(trainer, None, None, None, 0)
        assert raised.value.code == 75
    else:
        callback.on_train_batch_end(trainer, None, None, None, 0)
    assert saver.saved == stops


def test_a_signal_waits_for_the_step_while_training_and_only_then() -> None:
    request = FakeRequest()
    trainer, callback = trainer_of(Ranks(), Saver()), GracefulStop(request, 75)
    callback.on_train_start(trainer, None)
    assert request.deferred and request.listened == 1  # over Lightning's own handlers
    callback.on_train_end(trainer, None)
    assert not request.deferred


def test_ranks_that_see_other_checkpoints_end_instead_of_training_apart() -> None:
    callback = GracefulStop(FakeRequest(), 75)
    with pytest.raises(ValueError, match="rank 1 goes on from step 7, rank 0 from step 0"):
        callback.on_train_start(trainer_of(Ranks(first_step=0), Saver()), None)

"""The average against its recursion written out, through Lightning's own training, saving and resuming."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks import EMA, AtomicCheckpointIO


class Walk(L.LightningModule):
    """A weight that grows by one a step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.validated: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return -self.weight * 1.0

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(float(self.weight.detach()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.zeros(100, 1))  # type: ignore[arg-type]  # a tensor is a dataset

    val_dataloader = train_dataloader


def average(steps: int, decay: float, warm_up: bool = True) -> float:
    value = 0.0
    for n in range(steps):
        if n == 0:
            value = 1.0  # the first average is the first weights
            continue
        d = min(decay, (1 + n) / (10 + n)) if warm_up else decay
        value = d * value + (1 - d) * (n + 1)
    return value


def trainer(folder: Path, ema: EMA, max_steps: int) -> L.Trainer:
    return L.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        callbacks=[ema],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        val_check_interval=max_steps,
        check_val_every_n_epoch=None,
        default_root_dir=folder,
    )


@pytest.mark.parametrize("warm_up", [True, False])
def test_the_average_follows_its_recursion_and_is_what_validation_sees(tmp_path: Path, warm_up: bool) -> None:
    model, ema = Walk(), EMA(decay=0.5, warm_up=warm_up)
    trainer(tmp_path, ema, 12).fit(model)
    expected = average(12, 0.5, warm_up)
    assert model.validated == [pytest.approx(expected, rel=1e-6)]
    assert float(model.weight.detach()) == pytest.approx(expected, rel=1e-6)  # after training, too


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before")  # a loader of zeros
def test_a_resumed_average_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = Walk()
    trainer(tmp_path, EMA(0.9), 20).fit(whole)
    half = trainer(tmp_path, EMA(0.9), 10)
    half.callbacks.append(_SaveAt(10, tmp_path / "half.ckpt"))  # type: ignore[attr-defined]  # Lightning's list
    half.fit(Walk())
    resumed = Walk()
    trainer(tmp_path, EMA(0.9), 20).fit(resumed, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert torch.equal(resumed.weight, whole.weight)


def test_resuming_a_finished_training_leaves_the_average_in_place(tmp_path: Path) -> None:
    first = trainer(tmp_path, EMA(0.9), 10)
    first.callbacks.append(_SaveAt(10, tmp_path / "end.ckpt"))  # type: ignore[attr-defined]  # Lightning's list
    whole, again = Walk(), Walk()
    first.fit(whole)
    trainer(tmp_path, EMA(0.9), 10).fit(again, ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    assert float(again.weight.detach()) == pytest.approx(average(10, 0.9), rel=1e-6)
    assert torch.equal(again.weight, whole.weight)


class _SaveAt(L.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_warm_up_reaches_the_decay() -> None:
    ema = EMA(0.99)
    assert ema.decay_at(0) == pytest.approx(0.1)
    assert ema.decay_at(10_000) == 0.99
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1"):
        EMA(1.0)

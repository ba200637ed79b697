"""A step that is not finite changes nothing, is written down, and too many in a row end the training well."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks import EMA, AtomicCheckpointIO, JSONLLogger, LastCheckpoint, ProgressFile, SkipNonFinite
from mntp.batch import TokenBatch

ROWS = [4, 7]
NAMES = {4: "rain.wav", 7: "bell.wav"}
pytestmark = pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before")  # equal batches


class Drift(L.LightningModule):
    """Three weights under AdamW; `bad` says which micro-batches have a loss, or only a gradient, that is not finite."""

    def __init__(self, bad: dict[int, str] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.bad = bad or {}

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        weight = nn.functional.linear(self.weight, torch.eye(3))  # in half precision under autocast
        loss = (weight - batch.tokens.mean()).float().square().sum()
        what = self.bad.get(batch_idx)
        if what == "loss":
            loss = loss * math.inf
        elif what == "gradient":
            loss = loss + (self.weight - self.weight.detach()).abs().sqrt().sum()  # 0, with the slope 0 / 0
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Any]:
        batch = TokenBatch(torch.zeros(2, 1, 1), torch.ones(2, 1).bool(), {}, torch.tensor(ROWS), ["a", "b"])
        return DataLoader([batch] * 60, batch_size=None)  # type: ignore[arg-type]  # a list is a dataset


class Snapshots(Callback):
    """Everything that a step may change, as it was behind each micro-batch."""

    def __init__(self, ema: EMA) -> None:
        self.ema, self.taken = ema, []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        average = self.ema._average_model
        assert average is not None
        moments = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
        everything = [*pl_module.parameters(), *average.parameters(), average.n_averaged, *moments]
        self.taken.append([tensor.detach().clone() for tensor in everything])


def trainer(folder: Path, max_steps: int, *callbacks: Callback, accumulate: int = 1, **more: Any) -> L.Trainer:
    return L.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        gradient_clip_val=3.0,
        callbacks=list(callbacks),
        logger=JSONLLogger(folder / "metrics.jsonl"),
        log_every_n_steps=1,
        enable_checkpointing=any(isinstance(c, LastCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"plugins": [AtomicCheckpointIO()], **more},
    )


def lines(path: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def equal(first: Iterable[Tensor], second: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_skipped_step_changes_nothing_and_is_written_down(tmp_path: Path, what: str) -> None:
    """Two micro-batches a step; the second one of the third step is bad."""
    ema, skipping = EMA(0.9), SkipNonFinite(dirpath=tmp_path)
    progress, snapshots = ProgressFile(tmp_path / "progress.json", "abc"), Snapshots(ema)
    fit = trainer(tmp_path, 5, ema, skipping, progress, snapshots, accumulate=2)
    fit.fit(Drift({5: what}))
    after = snapshots.taken[1::2]  # behind each step
    assert equal(after[1], after[2])
    assert equal(after[2], snapshots.taken[6])  # nor does the average move at the next micro-batch
    assert not equal(after[0], after[1])
    assert not equal(after[2], after[3])
    assert skipping.skipped == 1
    rows = ROWS if what == "loss" else ROWS * 2  # the micro-batch; or all of the step
    assert lines(tmp_path / "skipped.jsonl") == [{"step": 2, "rank": 0, "what": what, "rows": rows, "files": []}]
    losses = [line["train/loss"] for line in lines(tmp_path / "metrics.jsonl")]
    assert [loss is None for loss in losses] == [False, False, what == "loss", False, False]
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 / 6)  # the schedule goes on


def test_a_loss_that_is_not_finite_is_null_in_the_progress(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "progress.json", "abc")
    for loss in (math.nan, math.inf):
        progress.write("training", 5, 5, loss)
        assert lines(tmp_path / "progress.json")[0]["loss"] is None


def test_files_are_named_where_there_is_a_store(tmp_path: Path) -> None:
    skipping = SkipNonFinite(dirpath=tmp_path)

    class Data(L.LightningDataModule):
        store = SimpleNamespace(clips={row: SimpleNamespace(file=name) for row, name in NAMES.items()})
        train_dataloader = Drift.train_dataloader

    trainer(tmp_path, 2, skipping).fit(Drift({0: "loss"}), datamodule=Data())
    assert lines(tmp_path / "skipped.jsonl")[0]["files"] == ["rain.wav", "bell.wav"]


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """Stopped between two skipped steps, after lines that the resumed training writes again."""
    bad = {3: "loss", 4: "gradient", 8: "loss"}

    def run(folder: Path, steps: int, **resume: Any) -> tuple[Drift, SkipNonFinite]:
        model, skipping = Drift(bad), SkipNonFinite(dirpath=folder)
        callbacks = (skipping, EMA(0.9), LastCheckpoint(folder, seconds=0.0))
        trainer(folder, steps, *callbacks).fit(model, weights_only=True, **resume)
        return model, skipping

    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole, counts = run(tmp_path / "whole", 12)
    run(tmp_path / "broken", 4)
    checkpoint = (tmp_path / "broken" / "last.ckpt").read_bytes()
    (tmp_path / "at-4.ckpt").write_bytes(checkpoint)
    run(tmp_path / "broken", 6, ckpt_path=tmp_path / "broken" / "last.ckpt")  # lost work
    resumed, again = run(tmp_path / "broken", 12, ckpt_path=tmp_path / "at-4.ckpt")
    assert torch.equal(whole.weight, resumed.weight)  # the averages, after fit
    assert counts.state_dict() == again.state_dict()
    assert counts.skipped == 3
    for name in ("skipped.jsonl", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "broken" / name).read_text()


def test_too_many_in_a_row_end_with_a_checkpoint_that_goes_on(tmp_path: Path) -> None:
    bad = {1: "loss", **dict.fromkeys(range(3, 9), "loss")}  # 1 is alone
    ema, skipping = EMA(0.9), SkipNonFinite(limit=3, dirpath=tmp_path)
    snapshots = Snapshots(ema)
    fit = trainer(tmp_path, 20, ema, skipping, LastCheckpoint(tmp_path, seconds=1e9), snapshots)
    with pytest.raises(
        ValueError, match=r"ended at step 6: the loss was not finite in 3 steps in a row.*clips 4, 7"
    ) as e:
        fit.fit(Drift(bad))
    assert "\n" not in str(e.value)
    assert str(tmp_path / "skipped.jsonl") in str(e.value)
    assert "last.ckpt" in str(e.value)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    assert torch.equal(checkpoint["current_model_state"]["weight"], snapshots.taken[2][0])
    # It goes on behind the clips that stopped it, with all its tries, and ends only if as many follow.
    with pytest.raises(ValueError, match="ended at step 9"):
        trainer(tmp_path, 20, EMA(0.9), SkipNonFinite(limit=3, dirpath=tmp_path)).fit(
            Drift(bad), ckpt_path=tmp_path / "last.ckpt", weights_only=True
        )
    model = Drift()
    trainer(tmp_path, 20, EMA(0.9), SkipNonFinite(limit=3, dirpath=tmp_path)).fit(
        model, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert model.weight.isfinite().all()


def test_ranks_decide_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank's loss is not finite: this one skips too, and leaves the line to the other."""
    skipping = SkipNonFinite(dirpath=tmp_path)
    fit = trainer(tmp_path, 2, skipping)
    asked: list[str] = []

    def reduce(tensor: Tensor, reduce_op: str) -> Tensor:
        if tensor.shape != (2,):  # Lightning's own question, for the length of the loader
            return tensor
        asked.append(reduce_op)
        return tensor + torch.tensor([1.0, 0.0])

    monkeypatch.setattr(fit.strategy, "reduce", reduce)
    model = Drift()
    fit.fit(model)
    assert asked == ["sum", "sum"]
    assert torch.equal(model.weight, torch.ones(3))
    assert skipping.skipped == 2
    assert not (tmp_path / "skipped.jsonl").exists()


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the scaler passes over the first steps
def test_overflows_of_the_loss_scaler_are_skipped_and_do_not_end_the_training(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler), AtomicCheckpointIO()]
    ema, skipping = EMA(0.9), SkipNonFinite(limit=3, dirpath=tmp_path)
    snapshots = Snapshots(ema)
    model = Drift()
    trainer(tmp_path, 20, ema, skipping, snapshots, plugins=plugins).fit(model)
    overflows = skipping.skipped
    assert 3 < overflows < 18
    assert scaler.get_scale() == 2.0 ** (20 - overflows)
    assert torch.equal(snapshots.taken[0][0], torch.ones(3))
    assert all(equal(snapshots.taken[0], taken) for taken in snapshots.taken[:overflows])
    assert not torch.equal(model.weight, torch.ones(3))


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_scale_that_has_nowhere_to_fall_counts(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler), AtomicCheckpointIO()]
    bad = dict.fromkeys(range(20), "gradient")
    with pytest.raises(ValueError, match="ended at step 5: the gradient was not finite in 3 steps in a row"):
        trainer(tmp_path, 20, SkipNonFinite(limit=3, dirpath=tmp_path), plugins=plugins).fit(Drift(bad))


def test_a_limit_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="limit must be at least 1 step, got 0"):
        SkipNonFinite(limit=0)

"""What a training step draws: a ratio for each optimiser step, positions for each micro-batch and clip."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from scipy import stats
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks import AtomicCheckpointIO
from mntp.masking import TruncatedNormal, num_hidden_in_mar, num_hidden_when_dropping, random_mask
from mntp.seeding import make_generator
from mntp.systems import audio_mar, audio_mntp
from tests.systems_support import N, tiny_batch, tiny_system

LAW = TruncatedNormal(0.6, 0.3)
STEPS, MICRO = 6, 2  # optimiser steps, micro-batches of each
pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")


class Log(Callback):
    """Ratio and loss of every micro-batch."""

    def __init__(self) -> None:
        self.ratios: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        self.ratios.append(float(trainer.callback_metrics["train/ratio"]))
        self.losses.append(float(outputs["loss"]))


def train(folder: Path, row: str, seed: int = 0) -> Log:
    log = Log()
    L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        accumulate_grad_batches=MICRO,
        callbacks=[log],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    ).fit(
        tiny_system(row, seed, mask_ratio=LAW),
        DataLoader([tiny_batch(8)] * (STEPS * MICRO), batch_size=None),  # type: ignore[arg-type]  # equal batches
    )
    return log


@pytest.mark.parametrize("row", ["G", "K"])
def test_one_ratio_an_optimiser_step_and_other_positions_in_every_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    masks: list[Tensor] = []

    def remember(*arguments: Any) -> Tensor:
        masks.append(random_mask(*arguments))
        return masks[-1]

    monkeypatch.setattr(audio_mntp, "random_mask", remember)
    monkeypatch.setattr(audio_mar, "random_mask", remember)
    log = train(tmp_path, row)
    law = [LAW.sample(make_generator(0, "ratio", step)) for step in range(STEPS)]
    assert log.ratios == pytest.approx([ratio for ratio in law for _ in range(MICRO)])
    assert len(set(log.ratios)) == STEPS
    count = num_hidden_in_mar if row == "K" else num_hidden_when_dropping
    for ratio, mask in zip(log.ratios, masks, strict=True):
        assert (mask.sum(dim=1) == count(ratio, N)).all()
    pairs = [(a, b) for a, b in zip(masks[::2], masks[1::2], strict=True) if 3 <= int(a[0].sum()) <= N - 3]
    assert len(pairs) >= 2
    for first, second in pairs:  # 220 masks or more, of which 8 clips draw; a coincidence is allowed
        assert not torch.equal(first, second)
        assert len({tuple(clip) for clip in first.tolist()}) >= 6


def test_over_the_steps_of_a_training_the_ratios_follow_the_law() -> None:
    """The steps' own generators, not one stream: Kolmogorov-Smirnov, wrong once in ten thousand seeds."""
    system = tiny_system("G", mask_ratio=LAW)
    ratios = [system.draw_ratio(make_generator(7, "ratio", step)) for step in range(2000)]
    truncated = stats.truncnorm(-0.6 / 0.3, 0.4 / 0.3, 0.6, 0.3)
    assert stats.kstest(ratios, truncated.cdf).pvalue > 1e-4
    assert abs(stats.pearsonr(ratios[1:], ratios[:-1])[0]) < 4 / 2000**0.5  # nor do neighbours know each other


def test_what_a_training_draws_is_a_function_of_its_seed(tmp_path: Path) -> None:
    first, again, other = (train(tmp_path, "G", seed) for seed in (0, 0, 1))
    assert first.ratios == again.ratios and first.losses == again.losses
    assert first.ratios != other.ratios

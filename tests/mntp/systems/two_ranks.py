"""One rank of a training on two, started by test_ranks.py: `python -m tests.mntp.systems.two_ranks FOLDER`.

The environment says which rank it is, as under any launcher. What each step has
drawn goes to FOLDER/<name>-<rank>.pt.
"""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks import AtomicCheckpointIO, Compile, SkipNonFinite
from mntp.masking import Uniform, random_mask
from mntp.systems import audio_mntp
from tests.systems_support import tiny_batch, tiny_system

STEPS = 6
BAD_STEP, BAD_RANK = 3, 1


class Draws(Callback):
    """Ratio, masks and weights of every step."""

    def __init__(self) -> None:
        self.ratios: list[float] = []
        self.masks: list[Tensor] = []
        self.weights: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.ratios.append(float(trainer.callback_metrics["train/ratio"]))
        self.weights.append(torch.nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone())


def train(folder: Path, name: str, *callbacks: Callback, **arguments: Any) -> None:
    draws = Draws()

    def remember(*sizes: Any) -> Tensor:
        draws.masks.append(random_mask(*sizes))
        return draws.masks[-1]

    audio_mntp.random_mask = remember  # type: ignore[attr-defined]  # watched
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        callbacks=[*callbacks, draws, SkipNonFinite(dirpath=folder / name)],
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    batches = [tiny_batch(4, seed) for seed in range(STEPS)]
    for batch in batches:
        batch.index += 100 * trainer.global_rank
    if trainer.global_rank == BAD_RANK:
        batches[BAD_STEP].tokens[0] = torch.inf
    system = tiny_system("G", mask_ratio=Uniform(0.1, 0.9), **arguments)
    trainer.fit(system, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]  # a list is a dataset
    content = {"ratios": draws.ratios, "masks": draws.masks, "weights": draws.weights}
    torch.save(content, folder / f"{name}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    for name, arguments in {"default": {}, "per rank": {"ratio_per_rank": True}}.items():
        train(Path(sys.argv[1]), name, **arguments)
    train(Path(sys.argv[1]), "compiled", Compile(bucket=4, backend="eager"))

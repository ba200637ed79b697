"""One checkpoint to go on from, never older than a few seconds."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Rewrites `last.ckpt` every few seconds, and when the training ends.

    Lightning logs a step's metrics just after this: a run that is killed in between goes on exactly, but lacks that
    one line of `metrics.jsonl`.

    Args:
        dirpath: its folder; None is `checkpoints` in the logger's folder, or else in the trainer's root folder.
        seconds: between two writes.
    """

    def __init__(self, dirpath: Path | None = None, seconds: float = 20.0) -> None:
        self.dirpath = dirpath
        self.seconds = seconds
        self._written = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._written = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write it if it is due, by the clock of rank 0: saving is a matter of all ranks."""
        due = trainer.is_global_zero and time.monotonic() - self._written >= self.seconds
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it if this was the end: what was trained since the last write would be lost."""
        out_of_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        out_of_epochs = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
        if out_of_steps or out_of_epochs or trainer.should_stop:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write it now; a matter of all ranks."""
        folder = self.dirpath or Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"
        trainer.save_checkpoint(Path(folder) / "last.ckpt")
        self._written = time.monotonic()

"""One checkpoint to go on from, never older than a few seconds."""

from datetime import timedelta
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Rewrites `last.ckpt` every few seconds, and when an epoch or the training ends.

    Args:
        dirpath: its folder; None is `checkpoints` in the logger's.
        seconds: between two writes.
    """

    def __init__(self, dirpath: Path | None = None, seconds: float = 20.0) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            save_top_k=1,
            train_time_interval=timedelta(seconds=seconds),
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it: what was trained since the last write would be lost if this was the end."""
        assert self.dirpath is not None  # set up by now
        trainer.save_checkpoint(Path(self.dirpath) / f"{self.filename}.ckpt")

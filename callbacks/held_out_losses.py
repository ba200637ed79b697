"""The held-out losses of each clip, so that two models can be compared clip by clip."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save
from torch import Tensor

from mntp.io.files import atomic_write


class HeldOutLosses(Callback):
    """Writes what each validation measured: `rows` [n] of the clips, in order, and [2, n] float64 for each loss.

    The two lines are a clip's sum of losses and its number of tokens. On several ranks each has all clips; the first
    writes.

    Args:
        path: the file; a later validation replaces it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clips: list[dict[str, Tensor]] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the last validation."""
        self._clips = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch."""
        self._clips.append({name: values.cpu() for name, values in outputs.items()})

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file."""
        if trainer.sanity_checking or not trainer.is_global_zero or not self._clips:
            return
        clips = {name: torch.cat([part[name] for part in self._clips], dim=-1) for name in self._clips[0]}
        order = clips["rows"].argsort()
        with atomic_write(self.path, "wb") as file:
            file.write(save({name: values[..., order].contiguous() for name, values in clips.items()}))

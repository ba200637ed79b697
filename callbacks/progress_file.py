"""How far a run is, in a small file that other processes can look at."""

import json
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from mntp.io.files import atomic_write
from mntp.io.json_lines import finite_or_none

SECONDS_BETWEEN_WRITES = 1.0


class ProgressFile(Callback):
    """Rewrites `progress.json` about once a second: protocol, phase, step, max_steps, loss, time of writing.

    A loss that is not finite is null.

    Args:
        path: the file.
        protocol: hash of the scoring that the process is at.

    Attributes:
        train_seconds: spent on the training steps that count: those of lost work, after a crash, do not.
    """

    def __init__(self, path: Path, protocol: str) -> None:
        self.path = Path(path)
        self.protocol = protocol
        self.train_seconds = 0.0
        self._written = 0.0
        self._counted = 0.0

    def write(self, phase: str, step: int, max_steps: int, loss: float | None = None) -> None:
        """Say where the run is, unless it was said less than a second ago; the first and last step always are."""
        now = time.time()
        if 0 < step < max_steps and now - self._written < SECONDS_BETWEEN_WRITES:
            return
        self._written = now
        finite = None if loss is None else finite_or_none(loss)
        place = {"phase": phase, "step": step, "max_steps": max_steps, "loss": finite}
        with atomic_write(self.path) as file:
            json.dump({"protocol": self.protocol, **place, "time": now}, file)

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far, kept in the checkpoint."""
        return {"train_seconds": self.train_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from the checkpoint."""
        self.train_seconds = state_dict["train_seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._counted = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the time and say how far training is."""
        now = time.monotonic()
        self.train_seconds, self._counted = self.train_seconds + now - self._counted, now
        if trainer.is_global_zero:
            loss = trainer.callback_metrics.get("train/loss")
            self.write("training", trainer.global_step, trainer.max_steps, None if loss is None else float(loss))

"""Exponential moving average of the weights, with the warm-up that short runs need."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from callbacks.skip_non_finite import last_step_was_skipped


class EMA(WeightAveraging):
    """Averages the weights after every optimiser step; validation, test and checkpoints' `state_dict` use the average.

    The decay at update n is min(decay, (1 + n) / (10 + n)): with a fixed 0.9999 a run of a few thousand steps would
    still consist of its initialisation. A step that `SkipNonFinite` skipped is no update. The average has the
    weights' dtype, which is float32 under mixed precision.

    Args:
        decay: the final decay (the paper's and MAR's: 0.9999).
        warm_up: False keeps the decay fixed.
    """

    def __init__(self, decay: float = 0.9999, warm_up: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema: decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.warm_up = warm_up
        super().__init__(multi_avg_fn=self._average)

    def decay_at(self, num_updates: int) -> float:
        """Decay of the update that follows `num_updates` earlier ones."""
        return min(self.decay, (1 + num_updates) / (10 + num_updates)) if self.warm_up else self.decay

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the last optimiser step, unless it was skipped."""
        if not last_step_was_skipped(trainer):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the module, also where a resumed training had nothing left to do.

        Lightning skips `on_train_end` there, which is where it is copied otherwise.
        """
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], currents: Sequence[Tensor], num_averaged: Any) -> None:
        decay = self.decay_at(int(num_averaged))
        torch._foreach_lerp_(list(averages), list(currents), 1 - decay)

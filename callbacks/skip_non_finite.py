"""Training steps whose loss or gradient is not finite: skipped, counted, written down, and an end to them."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from callbacks.last_checkpoint import LastCheckpoint
from mntp.io.json_lines import append_line, drop_lines_from

FILE = "skipped.jsonl"
SHOWN_CLIPS = 5  # in the message; the file has them all


class SkipNonFinite(Callback):
    """Lets an optimiser step change nothing if a loss or the gradient is not finite on any rank.

    Weights, the optimiser's moments and counts, and the averaged weights stay as they were; the learning rate's
    schedule and Lightning's step go on. Each skipped step is a line of `skipped.jsonl`: step, rank, what was not
    finite (`loss`: those micro-batches; `gradient`: all micro-batches of the step), rows of the clips in the store,
    and their files. Ranks decide alike, for one reduction and one wait for the device a step.

    Under `16-mixed` the loss scaler overflows by design: such a step counts as skipped, but towards `limit` only
    once the scale can't fall below one any more.

    Args:
        limit: steps skipped in a row that end the training, after a last checkpoint if there is `LastCheckpoint`.
        dirpath: folder of `skipped.jsonl`; None is the logger's folder, or else the trainer's root folder.

    Attributes:
        skipped: steps skipped so far.
        skipped_at: the trainer's `global_step` after the last one; -1 if there was none.
    """

    def __init__(self, limit: int = 10, dirpath: Path | None = None) -> None:
        if limit < 1:
            raise ValueError(f"skip non-finite: limit must be at least 1 step, got {limit}")
        self.limit = limit
        self.dirpath = dirpath
        self.skipped = 0
        self.skipped_at = -1
        self._in_a_row = 0
        self._path = Path()
        self._losses: list[Tensor] = []  # whether each micro-batch's loss is finite, on its device
        self._rows: list[Tensor] = []  # of the clips of each of these losses
        self._batch = torch.empty(0, dtype=torch.long)
        self._last: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The counts, kept in the checkpoint."""
        return {"skipped": self.skipped, "skipped_at": self.skipped_at, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from the checkpoint."""
        self.skipped, self.skipped_at = state_dict["skipped"], state_dict["skipped_at"]
        self._in_a_row = state_dict["in_a_row"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the lines of lost work."""
        self._path = Path(self.dirpath or trainer.log_dir or trainer.default_root_dir) / FILE
        if trainer.is_global_zero:
            drop_lines_from(self._path, trainer.global_step)
        trainer.strategy.barrier()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the rows of the batch's clips, if it names them as a `TokenBatch` does."""
        self._batch = getattr(batch, "index", torch.empty(0, dtype=torch.long))

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Look at the loss, without waiting for it; a module that optimises by hand has several in a batch."""
        self._rows.append(self._batch)
        self._losses.append(loss.detach().isfinite())

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Take the gradient away from a step that is to change nothing."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        bad = ~torch.stack([torch.stack(self._losses).all(), norm.isfinite()])
        bad_loss, bad_gradient = (trainer.strategy.reduce(bad.float(), reduce_op="sum") > 0).tolist()
        if bad_loss or bad_gradient:
            self._write(trainer, "loss" if bad_loss else "gradient")
            for parameter in parameters:
                parameter.grad = None  # the optimiser then passes over it, its decay and its moments
            self.skipped += 1
            self.skipped_at = trainer.global_step + 1
            scaler = trainer.scaler
            if bad_loss or scaler is None or scaler.get_scale() <= 1:
                self._in_a_row += 1
        else:
            self._in_a_row = 0
        self._losses, self._rows = [], []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the training if too many steps in a row were skipped.

        Raises:
            ValueError: they were; the checkpoint goes on after them, and counts from zero.
        """
        if self._in_a_row < self.limit:
            return
        self._in_a_row = 0
        savers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)]
        for saver in savers:
            saver.save(trainer)
        clips = [str(clip) for clip in self._last["files"] or self._last["rows"]]
        shown = ", ".join(clips[:SHOWN_CLIPS]) + (", ..." if len(clips) > SHOWN_CLIPS else "")
        raise ValueError(
            f"training ended at step {trainer.global_step}: the {self._last['what']} was not finite in {self.limit} "
            f"steps in a row, lastly with the clips {shown or 'of another rank'} ({self._path} lists all); "
            + ("last.ckpt holds the weights before them and goes on after them: " if savers else "")
            + "try a lower learning rate, a longer warm-up, or data without these clips"
        )

    def _write(self, trainer: L.Trainer, what: str) -> None:
        """Write the line of this rank; none where only others' losses were not finite."""
        chosen = [
            rows.tolist()
            for rows, finite in zip(self._rows, self._losses, strict=True)
            if what == "gradient" or not finite
        ]
        rows = [row for part in chosen for row in part]
        store = getattr(getattr(trainer, "datamodule", None), "store", None)
        files = [] if store is None else [store.clips[row].file for row in rows]
        self._last = {"step": trainer.global_step, "rank": trainer.global_rank, "what": what}
        self._last |= {"rows": rows, "files": files}
        if rows:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._path, self._last)


def last_step_was_skipped(trainer: L.Trainer) -> bool:
    """Whether the newest optimiser step is one that `SkipNonFinite` skipped."""
    return any(callback.skipped_at == trainer.global_step for callback in _of(trainer))


def skipped_steps(trainer: L.Trainer) -> int:
    """How many optimiser steps `SkipNonFinite` skipped so far."""
    return sum(callback.skipped for callback in _of(trainer))


def _of(trainer: L.Trainer) -> list[SkipNonFinite]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it at construction
    return [callback for callback in callbacks if isinstance(callback, SkipNonFinite)]

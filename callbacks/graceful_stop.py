"""Asked to stop, a training saves its place between two steps, on all ranks, and ends."""

from typing import Any, Protocol

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from callbacks.last_checkpoint import LastCheckpoint


class Request(Protocol):
    """Tells whether the process was asked to stop; see `experiments.runs.stop.StopRequest`."""

    made: bool
    deferred: bool

    def listen(self) -> None:
        """Take the signals."""
        ...


class GracefulStop(Checkpoint):
    """Stops training after the step in which any rank received a stop signal, with `LastCheckpoint` written.

    Subclasses `Checkpoint` only so that Lightning runs it last, after `EMA` has been updated.

    Args:
        request: tells whether this rank was asked.
        exit_code: of the `SystemExit`.
    """

    def __init__(self, request: Request, exit_code: int) -> None:
        self.request = request
        self.exit_code = exit_code

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on there is something to save.

        Raises:
            ValueError: the ranks don't go on from the same step.
        """
        self.request.listen()
        self.request.deferred = True
        first = trainer.strategy.broadcast(trainer.global_step)
        # A file that another node has just written may not be seen yet on a network file system.
        if trainer.strategy.reduce_boolean_decision(first != trainer.global_step, all=False):
            raise ValueError(
                f"rank {trainer.global_rank} goes on from step {trainer.global_step}, rank 0 from step {first}: they "
                "don't see the same checkpoint; is the runs folder on a file system that all nodes share?"
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if any rank was asked to: a signal need not reach all of them, nor in the same step."""
        if trainer.strategy.reduce_boolean_decision(self.request.made, all=False):
            for saver in trainer.checkpoint_callbacks:
                if isinstance(saver, LastCheckpoint):
                    saver.save(trainer)
            raise SystemExit(self.exit_code)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What follows keeps its own files, and may be ended anywhere."""
        self.request.deferred = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """As at the end."""
        self.request.deferred = False

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals in a validation of its own, too."""
        self.request.listen()

"""Compiled training steps: few graphs, however many lengths the mask ratio makes."""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import nn

from mntp.systems import AudioSystem


class Compile(Callback):
    """Compiles the backbone's blocks and the head's network by `torch.compile`, and evens out their lengths.

    Each kind of part is compiled once for all of its copies: a graph for the first length and one more, with the length
    as an argument, for all others. Parameters keep their names. Validation and sampling run uncompiled: their numbers
    don't change, and no graph is made for them. In training, numbers differ by rounding, and dropout draws differ.

    Args:
        bucket: fill a step's inputs up to a multiple of this length (`AudioSystem.length_multiple`), with inputs that
            nothing scored attends to; 1 leaves them as they are. AudioMAR's attention looks ahead, so it ignores this.
        mode: of `torch.compile`.
        backend: of `torch.compile`; inductor needs a C++ compiler, on a GPU Triton.

    Raises:
        ValueError: a bucket below 1.
    """

    def __init__(self, bucket: int = 1, mode: str | None = None, backend: str = "inductor") -> None:
        if bucket < 1:
            raise ValueError(f"compile: bucket must be at least 1 input, got {bucket}")
        self.bucket = bucket
        self.mode = mode
        self.backend = backend
        self._calls: dict[nn.Module, Callable[..., Any] | None] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Before a training: before DDP wraps the system; the first step then compiles."""
        assert isinstance(pl_module, AudioSystem)
        if stage == "fit":
            self._calls = self.apply(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Switch to the uncompiled calls."""
        self._switch(on=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Switch back to the compiled calls."""
        self._switch(on=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the system as it was."""
        self._switch(on=False)
        if self._calls:
            assert isinstance(pl_module, AudioSystem)
            pl_module.length_multiple = 1
        self._calls = {}

    def apply(self, system: AudioSystem) -> dict[nn.Module, Callable[..., Any] | None]:
        """Compile a system in place, without a trainer.

        Returns:
            The compiled parts, each with its compiled call.
        """
        system.length_multiple = self.bucket
        parts = compiled_parts(system)
        # dynamic=True would make one graph instead of two, but takes every float for an argument as well: the fused
        # attention's dropout, the norms' eps.
        for part in parts:
            part.compile(mode=self.mode, backend=self.backend)
        return {part: part._compiled_call_impl for part in parts}

    def _switch(self, on: bool) -> None:
        for part, call in self._calls.items():
            part._compiled_call_impl = call if on else None


def compiled_parts(system: AudioSystem) -> list[nn.Module]:
    """The parts of backbone and head that have parts themselves; of lists of parts (blocks), each one."""
    children = [*system.backbone.children(), *system.head.children()]
    return [part for child in children for part in _opened(child) if any(part.children())]


def _opened(module: nn.Module) -> list[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]

"""Compiled training steps: few graphs, however many lengths the mask ratio makes."""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import nn

from mntp.systems import AudioNTP, AudioSystem


class Compile(Callback):
    """Compiles what training spends its time in, by `torch.compile`, and evens out the lengths that it sees.

    Compiled are the backbone's blocks and the head's network, each kind once for all of its copies: a graph for the
    first length and one more, with the length as an argument, for all others. Parameters keep their names. Validation
    and sampling run as without it: their numbers don't depend on it, and no graph is made for them. In training
    numbers differ by rounding, and dropout draws otherwise.

    Args:
        bucket: fill a step's inputs up to a multiple of this length, by inputs that nothing scored attends to; 1 leaves
            them as they are. AudioMAR's attention looks ahead: its lengths stay what they are.
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
        """For a training: before DDP wraps the system, and before the first step, which then does the work."""
        assert isinstance(pl_module, AudioSystem)
        if stage == "fit":
            self._calls = self.apply(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on without."""
        self._switch(on=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take up again what was compiled."""
        self._switch(on=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the system as it was."""
        self._switch(on=False)
        self._calls = {}

    def apply(self, system: AudioSystem) -> dict[nn.Module, Callable[..., Any] | None]:
        """Compile a system in place, without a trainer.

        Returns:
            The compiled parts, each with its compiled call.
        """
        if isinstance(system, AudioNTP):
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
    """The blocks of the backbone, and the head's parts that have parts themselves."""
    backbone = system.backbone
    inside = [part for child in system.head.children() for part in _opened(child)]
    return [*backbone.encoder_blocks, *backbone.decoder_blocks, *(part for part in inside if any(part.children()))]


def _opened(module: nn.Module) -> list[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]

"""What a network that hears clips is: its way of reading files, its outputs by name, its fingerprint."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from mntp.io.fingerprint import hash_weights
from mntp.pretrained.precision import float32


class AudioNetwork(nn.Module, ABC):
    """A frozen network that hears clips: one result per clip, whatever else is in the batch.

    A batch holds clips of equal length; padding to a common length would be heard. Call it in `eval` mode.

    Attributes:
        sample_rate: in Hz, of what `read` gives and `forward` takes.
        outputs: names of the tensors that `forward` gives.
        front_end: a name of the definition that `read` and the analysis follow; renamed when either changes.
    """

    sample_rate: int
    outputs: ClassVar[tuple[str, ...]]
    front_end: str

    @abstractmethod
    def read(self, path: Path) -> Tensor:
        """Read a file as this network's definition asks, to [samples] float32 at `sample_rate`.

        Raises:
            AudioError: the file is missing, unreadable, empty, or holds a sample that is not finite.
        """

    @abstractmethod
    def hear(self, waveform: Tensor) -> dict[str, Tensor]:
        """`forward` without its care for precision."""

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        """Hear clips, without gradients and in exact float32.

        Args:
            waveform: [B, samples] float32 at `sample_rate`.

        Returns:
            For each name of `outputs` a tensor [B, ...], float32.
        """
        assert not self.training, "clips of a batch would influence each other: call eval() first"
        with float32():
            return self.hear(waveform)

    def fingerprint(self) -> str:
        """12 hex digits over class, front end and weights: equal only for networks that hear alike."""
        return hash_weights(self, f"{type(self).__name__} {self.front_end}")

"""The interface of a network that embeds clips: how it reads files, its outputs by name, its fingerprint."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from mntp.io.code_digest import code_digest
from mntp.io.fingerprint import hash_weights
from mntp.pretrained.precision import float32


class AudioNetwork(nn.Module, ABC):
    """A frozen network that embeds clips; the result of a clip doesn't depend on the others of its batch.

    A batch holds clips of equal length, because padding would change their embeddings. Call it in `eval` mode.

    Attributes:
        sample_rate: in Hz, of what `read` returns and `forward` takes.
        outputs: names of the tensors that `forward` returns.
        feature_version: a short description of how files are read and analysed, for readers.
    """

    sample_rate: int
    outputs: ClassVar[tuple[str, ...]]
    feature_version: str

    @abstractmethod
    def read(self, path: Path) -> Tensor:
        """Read a file as this network's definition asks, to [samples] float32 at `sample_rate`.

        Raises:
            AudioError: the file is missing, unreadable, empty, or holds a sample that is not finite.
        """

    @abstractmethod
    def embed(self, waveform: Tensor) -> dict[str, Tensor]:
        """Compute what `forward` returns, in whatever precision is set."""

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        """Embed clips, without gradients and in exact float32.

        Args:
            waveform: [B, samples] float32 at `sample_rate`.

        Returns:
            For each name of `outputs` a tensor [B, ...], float32.
        """
        assert not self.training, "clips of a batch would influence each other: call eval() first"
        with float32():
            return self.embed(waveform)

    def fingerprint(self) -> str:
        """Return 12 hex digits over weights, `feature_version` and code: the key of its embeddings in a cache."""
        return hash_weights(self, f"{type(self).__name__} {self.feature_version} {self.code()}")

    def code(self) -> str:
        """Return 12 hex digits over the code that turns a file into embeddings."""
        return code_digest([type(self)], without=[code_digest, hash_weights])

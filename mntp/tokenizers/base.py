"""What a tokenizer is: waveform <-> a grid of continuous tokens, in an order that the models can rely on."""

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn


class Tokenizer(nn.Module, ABC):
    """Turns waveforms into tokens and back.

    Tokens are time-major: `tokens_per_slice` tokens (frequency, inner) for each time slice (outer). What the
    tokenizer learned from data lives in its buffers, so that it travels with a store and with a checkpoint; weights
    of a public model don't (`state`), they are loaded again and compared by their hash.
    """

    sample_rate: ClassVar[int] = 16_000
    tokens_per_slice: ClassVar[int] = 4
    samples_per_slice: ClassVar[int] = 2560
    token_dim: int

    @abstractmethod
    def encode(self, waveform: Tensor) -> Tensor:
        """Encode waveform [B, samples] (float32, 16 kHz, samples a multiple of 2560) to tokens [B, N, D]."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Decode tokens [B, N, D] to waveform [B, samples], samples = N / 4 * 2560, exactly."""

    def decode_window(self, tokens: Tensor, first_slice: int) -> Tensor:
        """Decode tokens [B, n, D], a part of longer clips, to waveform [B, n / 4 * 2560].

        The same as what `decode` makes of the whole clips there, but near the part's ends; `mntp.inference.streaming`
        says how near. By default a part is decoded like a clip of its own.

        Args:
            tokens: of whole time slices.
            first_slice: place of the first of them in the clips.
        """
        return self.decode(tokens)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values."""

    def identity(self) -> dict[str, Any]:
        """The settings that decide what comes out: all of them, unless one only says where something lies."""
        return self.settings()

    def state(self) -> dict[str, Tensor]:
        """The tensors that travel with a store and with a checkpoint: all of them, unless they can be loaded again."""
        return self.state_dict()

    def num_tokens(self, samples: int) -> int:
        """Tokens of a clip of `samples` samples.

        Raises:
            ValueError: `samples` does not fill whole time slices.
        """
        slices, rest = divmod(samples, self.samples_per_slice)
        if rest or slices < 1:
            raise ValueError(
                f"a clip of {samples} samples does not fill whole time slices of {self.samples_per_slice} samples "
                f"({self.samples_per_slice / self.sample_rate} s): choose a multiple"
            )
        return slices * self.tokens_per_slice

    def fingerprint(self) -> str:
        """12 hex digits over class, identity and state: equal only for tokenizers that encode alike."""
        digest = hashlib.sha256(json.dumps([type(self).__name__, self.identity()], sort_keys=True).encode())
        for name, tensor in sorted(self.state().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

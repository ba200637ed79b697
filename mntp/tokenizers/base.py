"""The interface of a tokenizer: waveform <-> tokens in time order."""

import json
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from mntp.io.fingerprint import hash_state
from mntp.registry import class_name
from mntp.tokenizers.layout import TokenLayout


class Tokenizer(nn.Module, ABC):
    """Turns waveforms into tokens and back.

    What the tokenizer learned from data lies in its buffers, so that it travels with a store and with a checkpoint.
    Weights of a public model don't travel (see `state`): they are loaded again and compared by their hash.

    Attributes:
        layout: how its tokens lie in time; set by the constructor.
    """

    layout: TokenLayout

    @abstractmethod
    def encode(self, waveform: Tensor) -> Tensor:
        """Encode waveform [B, samples] (float32, at `layout.sample_rate`, whole frames) to tokens [B, N, D]."""

    def encode_ids(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode waveform [B, samples] to tokens [B, N, D] and their ids [B, N] int64.

        A tokenizer whose layout has a vocabulary overrides this; the ids are None for all others.
        """
        return self.encode(waveform), None

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Decode tokens [B, N, D] to waveform [B, samples], exactly `layout.samples_per_frame` samples a frame."""

    def decode_window(self, tokens: Tensor, first_frame: int) -> Tensor:
        """Decode tokens [B, n, D] of some consecutive frames of longer clips to waveform [B, samples].

        Equal to that part of `decode` of the whole clips, except near its ends (see `mntp.inference.streaming`). By
        default it is decoded as if it were a clip of its own.

        Args:
            tokens: of whole frames.
            first_frame: number of the first of these frames in the clips.
        """
        return self.decode(tokens)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values."""

    def identity(self) -> dict[str, Any]:
        """The settings that decide the tokens: all of them, except those that only say where a file lies."""
        return self.settings()

    def state(self) -> dict[str, Tensor]:
        """The tensors that travel with a store and a checkpoint: all of them, except those that are loaded again."""
        return self.state_dict()

    def num_tokens(self, samples: int) -> int:
        """Tokens of a clip of `samples` samples.

        Raises:
            ValueError: `samples` does not fill whole frames.
        """
        return self.layout.num_tokens(samples)

    def fingerprint(self) -> str:
        """12 hex digits over class, identity and state: equal only for tokenizers that encode alike."""
        return hash_state(self.state(), json.dumps([class_name(type(self)), self.identity()], sort_keys=True))

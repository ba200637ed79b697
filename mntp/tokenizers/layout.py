"""How tokens lie in time: what a store, a decoder and a batch need to know of a tokenizer without building it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class TokenLayout:
    """The grid of a tokenizer's tokens; it travels in a store's index.

    A clip is cut into frames of `samples_per_frame` samples; each frame is `tokens_per_frame` tokens, one after the
    other. Tokens are time-major: all of a frame, then those of the next. A tokenizer whose tokens all depend on the
    whole clip has one frame a clip.

    Attributes:
        dim: values of a token.
        sample_rate: of the waveform, in Hz.
        samples_per_frame: 1 or more.
        tokens_per_frame: 1 or more.
        vocabulary: number of ids, where each token also has an id from 0 on; None where tokens have values only.

    Raises:
        ValueError: a number is not positive.
    """

    dim: int
    sample_rate: int
    samples_per_frame: int
    tokens_per_frame: int = 1
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in asdict(self).items() if value is not None}
        if wrong := [f"{name}={value!r}" for name, value in numbers.items() if type(value) is not int or value < 1]:
            raise ValueError(f"a token layout with {', '.join(wrong)}; expected whole numbers from 1")

    @classmethod
    def from_index(cls, content: dict[str, Any]) -> Self:
        """Read what `asdict` gave.

        Raises:
            ValueError: an entry is missing, unknown or out of range.
        """
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"not a token layout: {content} ({error})") from error

    @property
    def frame_seconds(self) -> float:
        """Length of a frame in seconds."""
        return self.samples_per_frame / self.sample_rate

    def num_frames(self, num_tokens: int) -> int:
        """Whole frames among the first `num_tokens` tokens of a clip."""
        return num_tokens // self.tokens_per_frame

    def num_tokens(self, samples: int) -> int:
        """Tokens of a clip of `samples` samples.

        Raises:
            ValueError: `samples` does not fill whole frames.
        """
        frames, rest = divmod(samples, self.samples_per_frame)
        if rest or frames < 1:
            raise ValueError(
                f"a clip of {samples} samples does not fill whole frames of {self.samples_per_frame} samples "
                f"({self.frame_seconds:g} s): choose a multiple"
            )
        return frames * self.tokens_per_frame

    def check_tokens(self, shape: Sequence[int]) -> None:
        """Refuse tokens that can't be decoded.

        Args:
            shape: of tokens, [B, N, D].

        Raises:
            ValueError: they are not whole frames of tokens of `dim` values.
        """
        if len(shape) != 3 or shape[1] % self.tokens_per_frame or shape[2] != self.dim:
            raise ValueError(
                f"tokens of shape {tuple(shape)} can't be decoded; expected [B, multiple of {self.tokens_per_frame}, "
                f"{self.dim}]: were they made by another tokenizer?"
            )

    def num_valid_tokens(self, seconds: float) -> int:
        """Tokens of every frame that `seconds` of sound reach into; the others hold padding."""
        frames = math.ceil(round(seconds * self.sample_rate) / self.samples_per_frame)
        return frames * self.tokens_per_frame


def mel_layout(dim: int) -> TokenLayout:
    """The layout of `MelTokenizer` and `AudioLDM`: 4 frequency bands of every 0.16 s at 16 kHz.

    Stores that were made before layouts were recorded have it, too.
    """
    return TokenLayout(dim, sample_rate=16_000, samples_per_frame=2560, tokens_per_frame=4)

"""A user's own tokenizers and text encoder, of other layouts than the suite's."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from mntp.batch import TextStream
from mntp.text import TextEncoder
from mntp.tokenizers import Tokenizer, TokenLayout


class BlockTokenizer(Tokenizer):
    """12.5 tokens a second at 16 kHz: a token is the means of eight blocks of its 80 ms."""

    def __init__(self, gain: float = 2.0) -> None:
        super().__init__()
        self.gain = gain
        self.layout = TokenLayout(dim=8, sample_rate=16_000, samples_per_frame=1280)

    def encode(self, waveform: Tensor) -> Tensor:
        return self.gain * waveform.reshape(len(waveform), -1, 8, 160).mean(-1)

    def decode(self, tokens: Tensor) -> Tensor:
        return (tokens / self.gain).repeat_interleave(160, dim=2).flatten(1)

    def settings(self) -> dict[str, Any]:
        return {"gain": self.gain}


class LevelTokenizer(Tokenizer):
    """Two tokens for every 40 ms at 24 kHz: the loudness of half a frame as one of 16 levels, with its id."""

    def __init__(self) -> None:
        super().__init__()
        self.layout = TokenLayout(dim=2, sample_rate=24_000, samples_per_frame=960, tokens_per_frame=2, vocabulary=16)
        levels = torch.linspace(0, 0.5, 16)
        self.register_buffer("codebook", torch.stack([levels, levels.square()], dim=1))

    def encode(self, waveform: Tensor) -> Tensor:
        return self.encode_ids(waveform)[0]

    def encode_ids(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        loudness = waveform.reshape(len(waveform), -1, 480).square().mean(-1).sqrt()
        ids = (loudness[..., None] - self.codebook[:, 0]).abs().argmin(-1)
        return self.codebook[ids], ids

    def decode(self, tokens: Tensor) -> Tensor:
        return tokens[..., 0].repeat_interleave(480, dim=1)

    def settings(self) -> dict[str, Any]:
        return {}


class VowelText(TextEncoder):
    """How often each vowel comes: stream `pooled`; and a state a word: stream `words`."""

    streams: ClassVar[dict[str, TextStream]] = {"pooled": TextStream(5, 1), "words": TextStream(5, 4)}

    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        words = [torch.tensor([_vowels(word) for word in caption.split()[:4]]) for caption in captions]
        return {"pooled": [each.sum(0, keepdim=True) for each in words], "words": words}

    def settings(self) -> dict[str, Any]:
        return {}


def _vowels(word: str) -> list[float]:
    return [float(word.count(vowel)) for vowel in "aeiou"]

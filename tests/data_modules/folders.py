"""Small captioned folders of synthetic sounds, and a tokenizer that makes what it heard easy to check."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile
import torch
from torch import Tensor

from mntp.text.base import TextEncoder, TextStream
from mntp.tokenizers.base import Tokenizer
from mntp.tokenizers.layout import mel_layout

RATE = 16_000
SECONDS = 0.32


def write_sound(path: Path, seconds: float, seed: int = 0, loudness: float = 0.3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = loudness * np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))
    soundfile.write(path, samples.astype(np.float32), RATE, subtype="FLOAT")


def write_folder(folder: Path, lengths: dict[str, tuple[float, str]]) -> Path:
    """Sounds by file name (seconds, split), with a captions table; returns the table."""
    lines = ["file,caption,split"]
    for seed, (file, (seconds, split)) in enumerate(lengths.items()):
        write_sound(folder / file, seconds, seed)
        lines.append(f"{file},sound number {seed} of {Path(file).stem},{split}")
    table = folder / "captions.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def write_clips(folder: Path, train: int = 6, val: int = 3, test: int = 2) -> Path:
    counts = {"train": train, "val": val, "test": test}
    files = {f"{split}{i}.wav": (SECONDS, split) for split, n in counts.items() for i in range(n)}
    return write_folder(folder, files)


class EnergyTokenizer(Tokenizer):
    """A token is four root mean squares of a quarter of its slice, times a learned gain."""

    def __init__(self, token_dim: int = 4) -> None:
        super().__init__()
        self.layout = mel_layout(token_dim)
        self.register_buffer("gain", torch.zeros(()))
        self.num_fitted = 0

    def fit(self, waveforms: Iterable[Tensor]) -> None:
        powers = [waveform.square().mean() for waveform in waveforms]
        self.num_fitted = len(powers)
        self.gain.copy_(torch.stack(powers).mean().rsqrt())

    def encode(self, waveform: Tensor) -> Tensor:
        parts = waveform.reshape(len(waveform), self.num_tokens(waveform.shape[-1]), self.layout.dim, -1)
        return parts.square().mean(-1).sqrt() * self.gain

    def decode(self, tokens: Tensor) -> Tensor:
        repeats = self.layout.samples_per_frame // self.layout.tokens_per_frame // self.layout.dim
        return (tokens / self.gain).flatten(1).repeat_interleave(repeats, dim=1)

    def reconstruction_error(self, waveform: Tensor) -> dict[str, float]:
        return {"rmse": (self.decode(self.encode(waveform)) - waveform).square().mean().sqrt().item()}

    def settings(self) -> dict[str, Any]:
        return {"token_dim": self.layout.dim}


class LetterText(TextEncoder):
    """Stream `words` is one vector [length, 1] of code points a word, `pooled` their mean."""

    streams: ClassVar[dict[str, TextStream]] = {"pooled": TextStream(1, 1), "words": TextStream(1, 8)}

    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        words = [torch.tensor([[float(len(word))] for word in caption.split()]) for caption in captions]
        return {"pooled": [each.mean(0, keepdim=True) for each in words], "words": words}

    def settings(self) -> dict[str, Any]:
        return {}

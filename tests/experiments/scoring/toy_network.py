"""A tiny network that counts the clips it embeds, score sets over it, and folders of small sounds."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from mntp.audio.files import read_audio
from mntp.metrics.audioldm_scores import ToolkitScores
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.cnn14 import Cnn14
from mntp.metrics.networks.vggish import VGGish
from tests.mntp.pretrained.layouts import randomise


class Ear(AudioNetwork):
    """Projects energies of eight parts of a clip; `num_embedded` counts clips, `num_read` files."""

    sample_rate = 16_000
    outputs: ClassVar[tuple[str, ...]] = ("features", "patches")
    feature_version = "energies"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.project = nn.Linear(8, 3)
        randomise(self, seed)
        self.batches: list[int] = []
        self.num_read = 0
        self.eval()

    @property
    def num_embedded(self) -> int:
        return sum(self.batches)

    def read(self, path: Path) -> Tensor:
        self.num_read += 1
        return read_audio(path)

    def embed(self, waveform: Tensor) -> dict[str, Tensor]:
        self.batches.append(len(waveform))
        whole = waveform.shape[1] // 8 * 8
        energies = waveform[:, :whole].unflatten(1, (8, -1)).square().mean(2).log1p()
        features = self.project(energies)
        return {"features": features, "patches": features[:, None].expand(-1, waveform.shape[1] // 1000, -1)}


class Clap(Ear):
    """In the place of CLAP: gives 3 values, and embeds a caption by its length and its first letters."""

    outputs: ClassVar[tuple[str, ...]] = ("audio_embedding",)

    def embed(self, waveform: Tensor) -> dict[str, Tensor]:
        return {"audio_embedding": super().embed(waveform)["features"]}

    def embed_text(self, captions: list[str]) -> Tensor:
        return torch.tensor([[len(caption), ord(caption[0]), ord(caption[-1])] for caption in captions]).float() - 60


def tiny_toolkit(with_clap: bool = False) -> ToolkitScores:
    cnn14, vggish = Cnn14(width=1, num_classes=7).eval(), VGGish(width=1, num_hidden=4).eval()
    randomise(cnn14)
    randomise(vggish, seed=1)
    return ToolkitScores(cnn14, vggish, Clap() if with_clap else None)  # type: ignore[arg-type]


def write_sound(path: Path, seed: int, samples: int = 4000, rate: int = 16_000) -> Path:
    noise = np.random.default_rng(seed).standard_normal(samples) * 0.1 * (1 + seed % 5)
    soundfile.write(path, noise * np.linspace(0, 1 + seed % 3, samples), rate, subtype="PCM_16")
    return path


def write_sounds(folder: Path, num_clips: int, seed: int = 0, samples: int = 4000) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [write_sound(folder / f"{i:03d}.wav", 1000 * seed + i, samples) for i in range(num_clips)]

"""The embedded judge: a small network that classifies clips and tells how well a caption fits one.

It takes the place of VGGish, Cnn14 and CLAP on machines without their weights, and its scores have
names of their own (`fd_judge`, `kl_judge`, `is_judge`, `text_judge`). It knows only the corpus that it was trained on
(see `experiments/scoring/train_judge.py`): on other sound its scores are out of domain.
"""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from mntp.audio.files import read_audio
from mntp.audio.log_mel import HOP, NUM_MELS, SAMPLE_RATE, LogMel, fit_length, normalise
from mntp.io.fingerprint import hash_weights
from mntp.metrics.networks.base import AudioNetwork
from mntp.text.hashed import HashedText


class JudgeOutput(NamedTuple):
    """The judge's outputs for a batch of clips.

    Attributes:
        features: [B, F] float32, for Frechet distances.
        log_probs: [B, K] float32, natural-log probabilities of the judge's classes.
        audio_embedding: [B, E] float32 of unit length, in one space with `Judge.embed_text`.
    """

    features: Tensor
    log_probs: Tensor
    audio_embedding: Tensor


class Judge(AudioNetwork):
    """Convolutions over the log-mel of the normalised waveform, pooled over time; a GRU over a caption's words.

    Absolute level doesn't matter, because the judge normalises clips as the tokenizers do. Clips of one batch don't
    influence each other in `eval` mode.

    Args:
        classes: names of the K classes.
        num_features: F; low on purpose, so that F x F covariances mean something for one or two hundred clips.
        num_embedding: E, of the space that audio and captions share.
    """

    sample_rate = SAMPLE_RATE
    outputs: ClassVar[tuple[str, ...]] = JudgeOutput._fields
    feature_version = "first channel, normalised, AudioLDM log-mel"
    min_samples = 10_240
    """0.64 s at 16 kHz; shorter clips are filled with silence."""

    def __init__(self, classes: Sequence[str], num_features: int = 64, num_embedding: int = 64) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.num_features, self.num_embedding = num_features, num_embedding
        self.log_mel = LogMel()
        self.audio_tower = AudioTower(num_features)
        self.class_head = nn.Linear(num_features, len(self.classes))
        self.audio_head = nn.Linear(num_features, num_embedding)
        self.text_tower = TextTower(num_embedding)

    def read(self, path: Path) -> Tensor:
        """The first channel, at 16 kHz."""
        return read_audio(path, self.sample_rate)

    def embed(self, waveform: Tensor) -> dict[str, Tensor]:
        """Embed waveform [B, samples], of any length and level."""
        return self.embed_log_mel(self.spectrogram(waveform))._asdict()

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """Log-mel [B, frames, 64] of the normalised waveform [B, samples], filled up to whole frames."""
        whole_frames = math.ceil(waveform.shape[-1] / HOP) * HOP
        return self.log_mel(fit_length(normalise(waveform), max(whole_frames, self.min_samples)))

    def embed_log_mel(self, log_mel: Tensor) -> JudgeOutput:
        """Embed clips from `spectrogram`'s log-mel [B, frames, 64]."""
        features = self.audio_tower(log_mel)
        return JudgeOutput(
            features=features,
            log_probs=self.class_head(features).log_softmax(-1),
            audio_embedding=F.normalize(self.audio_head(features), dim=-1),
        )

    def embed_text(self, captions: list[str]) -> Tensor:
        """Embed captions as [B, E] float32 of unit length.

        Raises:
            ValueError: a caption has no words.
        """
        return F.normalize(self.text_tower(captions), dim=-1)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values."""
        return {
            "classes": list(self.classes),
            "num_features": self.num_features,
            "num_embedding": self.num_embedding,
        }

    def weights_hash(self) -> str:
        """Return 12 hex digits over settings and weights, whatever the code does with them."""
        return hash_weights(self, json.dumps(self.settings(), sort_keys=True))


class AudioTower(nn.Module):
    """Log-mel -> one vector of features per clip, for any number of frames."""

    channels = (16, 32, 48)
    time_strides = (4, 2, 2)
    width = 96

    def __init__(self, num_features: int) -> None:
        super().__init__()
        planes = pairwise((1, *self.channels))
        self.image = nn.Sequential(
            *(_conv_block_2d(*plane, stride) for plane, stride in zip(planes, self.time_strides, strict=True))
        )
        bands = NUM_MELS >> len(self.channels)
        self.sequence = nn.Sequential(
            _conv_block_1d(bands * self.channels[-1], self.width, dilation=1),
            _conv_block_1d(self.width, self.width, dilation=2),
        )
        self.project = nn.Linear(3 * self.width, num_features)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Reduce log-mel [B, frames, 64] to features [B, F]."""
        # From [-11.5, 5] to about [-1.3, 2]: a constant, so that silence looks the same in every clip.
        image = self.image((log_mel[:, None] + 5) / 5)
        sequence = self.sequence(rearrange(image, "b c t f -> b (c f) t"))
        # The mean along a ramp tells early from late, which plain pooling can't.
        ramp = torch.linspace(-1, 1, sequence.shape[-1], device=sequence.device)
        pooled = [sequence.mean(-1), sequence.amax(-1), (sequence * ramp).mean(-1)]
        return self.project(torch.cat(pooled, dim=-1))


class TextTower(nn.Module):
    """Caption -> one vector: a two-way GRU over hashed words, averaged over the words."""

    word_dim = 64
    max_words = 32
    width = 64

    def __init__(self, num_embedding: int) -> None:
        super().__init__()
        self.words = HashedText(dim=self.word_dim, slots=self.max_words)
        self.gru = nn.GRU(self.word_dim, self.width, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * self.width, num_embedding)

    def forward(self, captions: list[str]) -> Tensor:
        """Embed captions as [B, E]."""
        words = self.words.encode(captions)["words"]
        lengths = torch.tensor([len(w) for w in words])
        padded = pad_sequence(words, batch_first=True).to(self.project.weight)
        packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        return self.project(states.sum(1) / lengths[:, None].to(states))


def _conv_block_2d(in_channels: int, out_channels: int, time_stride: int) -> nn.Sequential:
    """Convolution over time and frequency that divides time by `time_stride` and frequency by 2."""
    conv = nn.Conv2d(in_channels, out_channels, (5, 3), stride=(time_stride, 2), padding=(2, 1), bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


def _conv_block_1d(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    """Convolution over time that keeps its length."""
    conv = nn.Conv1d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(out_channels), nn.ReLU())

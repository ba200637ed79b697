"""The toolkit's loader, against its definition written out, and against its neighbours that give other scores."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mntp.audio.files import AudioError
from mntp.metrics.networks.read_clip import MIN_SAMPLES, read_clip


def clip(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise beside a constant, [samples, channels], on the grid of 16-bit files."""
    noise = np.random.default_rng(seed).standard_normal((samples, channels)) * 0.1 + [0.2, -0.3][:channels]
    return np.round(noise * 2**15) / 2**15


def write(path: Path, samples: np.ndarray, rate: int) -> Path:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def windowed_sinc(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """Hann-windowed sinc, 6 zero crossings to either side, rolled off at 0.99 of the lower Nyquist frequency."""
    cutoff = 0.99 * min(old, new)
    resampled = np.zeros(math.ceil(new * len(samples) / old))
    time = np.arange(len(samples)) / old
    for index in range(len(resampled)):
        crossings = (time - index / new) * cutoff
        near = np.abs(crossings) < 6
        window = np.cos(crossings[near] * np.pi / 12) ** 2
        resampled[index] = (samples[near] * np.sinc(crossings[near]) * window).sum() * cutoff / old
    return resampled


def reference(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    first = samples[:, 0] - samples[:, 0].mean()
    resampled = first if old == new else windowed_sinc(first, old, new)
    return np.concatenate([resampled, np.zeros(max(0, 32_000 - len(resampled)))])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("old", "new"), [(16_000, 16_000), (44_100, 16_000), (8_000, 16_000), (32_000, 16_000), (48_000, 32_000)]
)
def test_equals_the_definition_at_every_rate(tmp_path: Path, old: int, new: int, channels: int) -> None:
    samples = clip(3001, channels)
    found = read_clip(write(tmp_path / "a.wav", samples, old), new)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), reference(samples, old, new), atol=2e-5)


@pytest.mark.parametrize("rate", [16_000, 32_000])
@pytest.mark.parametrize("samples", [1, 31_999, 32_000, 32_001, 50_000])
def test_short_clips_end_in_silence_and_long_ones_stay(tmp_path: Path, samples: int, rate: int) -> None:
    content = clip(samples)
    found = read_clip(write(tmp_path / "a.wav", content, rate), rate)
    assert len(found) == max(samples, 32_000) and MIN_SAMPLES == 32_000
    assert found[samples:].eq(0).all()
    np.testing.assert_allclose(found[:samples], content[:, 0] - content.mean(), atol=1e-6)


def centred(samples: np.ndarray) -> np.ndarray:
    return samples - samples.mean()


WRONG: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the constant stays": lambda samples: windowed_sinc(samples[:, 0], 44_100, 16_000),
    "the mean of both channels": lambda samples: windowed_sinc(samples.mean(1) - samples.mean(), 44_100, 16_000),
    "the second channel": lambda samples: windowed_sinc(samples[:, 1] - samples[:, 1].mean(), 44_100, 16_000),
    "centred after resampling": lambda samples: centred(windowed_sinc(samples[:, 0], 44_100, 16_000)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_its_neighbours_are_told_apart(tmp_path: Path, wrong: str) -> None:
    samples = clip(4410, channels=2)
    found = read_clip(write(tmp_path / "a.wav", samples, 44_100), 16_000).numpy()[:1600]
    np.testing.assert_allclose(found, reference(samples, 44_100, 16_000)[:1600], atol=2e-5)
    assert np.abs(found - WRONG[wrong](samples)).max() > 1e-3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such audio file"),
        (b"not audio", "not readable as audio"),
        (np.zeros((0, 1)), "holds 0 samples"),
        (np.array([[0.1], [np.nan], [0.2]]), "not finite"),
        (np.array([[0.1], [np.inf], [0.2]]), "not finite"),
    ],
    ids=["missing", "text", "empty", "nan", "inf"],
)
def test_what_can_not_be_used_is_named_and_not_replaced(
    tmp_path: Path, content: bytes | np.ndarray | None, message: str
) -> None:
    write(tmp_path / "next.wav", clip(100), 16_000)
    path = tmp_path / "a.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        soundfile.write(path, content, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=rf"a\.wav: .*{message}"):
        read_clip(path, 16_000)

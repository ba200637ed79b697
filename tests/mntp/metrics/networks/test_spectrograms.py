"""VGGish's and PANNs' log-mel against their definitions written out in float64, and against near misses."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mntp.metrics.networks.spectrograms import DecibelMel, VGGishLogMel
from tests.mntp.audio.test_log_mel import slaney_hz

PANNS = {"16 kHz": (16_000, 512, 160, 50, 8_000), "32 kHz": (32_000, 1024, 320, 50, 14_000)}
FRONT_ENDS = {**PANNS, "CLAP": (48_000, 1024, 480, 50, 14_000)}


def chord(samples: int, seed: int = 0) -> Tensor:
    """Noise that swells over a low and a middle tone, on a constant: [samples] float32."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16_000
    swell = torch.linspace(0, 0.2, samples) * torch.randn(samples, generator=generator)
    return swell + 0.1 * torch.sin(2 * np.pi * 60 * time) + 0.05 * torch.sin(2 * np.pi * 1500 * time) + 0.01


def hann(points: int, periodic: bool = True) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(points) / (points if periodic else points - 1))


def spectra(frames: np.ndarray, num_fft: int) -> np.ndarray:
    """Explicit transform of real frames [n, length <= num_fft]."""
    time, frequency = np.arange(frames.shape[1]), np.arange(num_fft // 2 + 1)
    return frames @ np.exp(-2j * np.pi * np.outer(time, frequency) / num_fft)


def vggish_reference(
    samples: np.ndarray, power: int = 1, periodic: bool = True, floor: float = 125, linear_hertz: bool = False
) -> np.ndarray:
    """Patches [P, 96, 64], band by band and frame by frame."""
    starts = range(0, len(samples) - 399, 160)
    frames = np.stack([samples[start : start + 400] for start in starts]) * hann(400, periodic)
    magnitude = np.abs(spectra(frames, 512)) ** power
    mel = 1127 * np.log(1 + np.arange(257) * 31.25 / 700)
    low, high = 1127 * np.log(1 + floor / 700), 1127 * np.log(1 + 7500 / 700)
    edges = [low + (high - low) * index / 65 for index in range(66)]
    place, corners = (mel, edges) if not linear_hertz else (np.exp(mel / 1127), np.exp(np.array(edges) / 1127))
    bands = np.empty((len(frames), 64))
    for band in range(64):
        left, centre, right = corners[band : band + 3]
        triangle = np.maximum(0, np.minimum((place - left) / (centre - left), (right - place) / (right - centre)))
        triangle[0] = 0
        bands[:, band] = magnitude @ triangle
    log_mel = np.log(bands + 0.01)
    return np.stack([log_mel[first : first + 96] for first in range(0, len(log_mel) - 95, 96)])


def panns_filters(rate: int, num_fft: int, f_min: float, f_max: float) -> np.ndarray:
    """Slaney triangles [bins, 64] of equal area, in float64."""

    def mel_of(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)

    edges = slaney_hz(np.linspace(mel_of(f_min), mel_of(f_max), 66))
    bins = np.arange(num_fft // 2 + 1) * rate / num_fft
    triangles = [
        np.clip(np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)), 0, None) * 2 / (high - low)
        for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False)
    ]
    return np.stack(triangles, axis=1)


def panns_reference(
    samples: np.ndarray, rate: int, num_fft: int, hop: int, f_min: float, f_max: float, power: int = 2
) -> np.ndarray:
    """Decibels [frames, 64]: frames around every hop, reflected at the ends."""
    half = num_fft // 2
    padded = np.concatenate([samples[half:0:-1], samples, samples[-2 : -half - 2 : -1]])
    frames = np.stack([padded[start : start + num_fft] for start in range(0, len(samples) + 1, hop)])
    energy = np.abs(spectra(frames * hann(num_fft), num_fft)) ** power
    return 10 * np.log10(np.maximum(energy @ panns_filters(rate, num_fft, f_min, f_max), 1e-10))


def test_vggish_equals_the_definition() -> None:
    clips = torch.stack([chord(33_000), chord(33_000, seed=1)])
    found = VGGishLogMel()(clips)
    assert found.dtype == torch.float32 and found.shape == (2, 2, 96, 64)
    for patches, clip in zip(found, clips, strict=True):
        np.testing.assert_allclose(patches, vggish_reference(clip.double().numpy()), atol=1e-6)


@pytest.mark.parametrize("wrong", [{"power": 2}, {"periodic": False}, {"floor": 50}, {"linear_hertz": True}], ids=str)
def test_vggish_is_told_apart_from_near_misses(wrong: dict[str, int]) -> None:
    clip = chord(16_000)
    found = VGGishLogMel()(clip[None])[0].numpy()
    assert np.abs(found - vggish_reference(clip.double().numpy(), **wrong)).max() > 1e-3  # type: ignore[arg-type]


@pytest.mark.parametrize(("samples", "patches"), [(15_600, 1), (30_959, 1), (30_960, 2), (160_000, 10), (163_840, 10)])
def test_vggish_drops_what_fills_no_patch(samples: int, patches: int) -> None:
    assert VGGishLogMel()(torch.zeros(1, samples)).shape == (1, patches, 96, 64)


def test_vggish_says_what_length_it_needs() -> None:
    with pytest.raises(ValueError, match="at least 15600 samples, got 15599"):
        VGGishLogMel()(torch.zeros(1, 15_599))


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_decibels_equal_the_definition(name: str) -> None:
    clips = torch.stack([chord(8000), chord(8000, seed=1)])
    found = DecibelMel(*FRONT_ENDS[name])(clips)
    hop = FRONT_ENDS[name][2]
    assert found.dtype == torch.float32 and found.shape == (2, 1, 1 + 8000 // hop, 64)
    for log_mel, clip in zip(found[:, 0], clips, strict=True):
        # In decibels: float32 against float64.
        np.testing.assert_allclose(log_mel, panns_reference(clip.double().numpy(), *FRONT_ENDS[name]), atol=2e-3)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_decibels_are_told_apart_from_near_misses(name: str) -> None:
    rate, num_fft, hop, f_min, f_max = FRONT_ENDS[name]
    clip = chord(8000)
    found, samples = DecibelMel(*FRONT_ENDS[name])(clip[None])[0, 0].numpy(), clip.double().numpy()
    for wrong in (
        panns_reference(samples, rate, num_fft, hop, 0, f_max),
        panns_reference(samples, rate, num_fft, hop, f_min, f_max - 500),
        panns_reference(samples, rate, num_fft, hop, f_min, f_max, power=1),
    ):
        assert np.abs(found - wrong).max() > 0.1


def test_silence_is_100_decibels_below_full_scale() -> None:
    assert DecibelMel(*PANNS["16 kHz"])(torch.zeros(1, 32_000)).eq(-100).all()


@pytest.mark.parametrize("front_end", [VGGishLogMel(), DecibelMel(*PANNS["16 kHz"])])
def test_constants_stay_out_of_checkpoints(front_end: torch.nn.Module) -> None:
    assert not front_end.state_dict()

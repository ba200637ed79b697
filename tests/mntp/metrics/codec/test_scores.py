"""Codec scores where their values can be worked out, and what they refuse."""

import math

import pytest
import torch
from torch import Tensor

from mntp.metrics.codec.mel_distance import SCALES, mel_distance
from mntp.metrics.codec.pesq import pesq
from mntp.metrics.codec.scores import codec_scores
from mntp.metrics.codec.si_sdr import si_sdr
from mntp.metrics.codec.stoi import stoi

RATE = 16_000


def noise(seed: int, samples: int = RATE) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def syllables(seconds: float = 3.0) -> Tensor:
    """A buzz of 120 Hz through a moving resonance, on and off four times a second: speech enough for PESQ and STOI."""
    time = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    centre = 700 + 400 * (2 * math.pi * 0.7 * time).sin()
    buzz = sum(
        torch.exp(-((120 * k - centre) / 500).square()) * (2 * math.pi * 120 * k * time).sin() for k in range(1, 30)
    )
    return 0.1 * buzz * (0.5 + 0.5 * (2 * math.pi * 4 * time).sin().sign())


def test_si_sdr_of_a_known_share_of_orthogonal_noise() -> None:
    signal, other = noise(0), noise(1)
    signal, other = signal - signal.mean(), other - other.mean()
    other = other - (other @ signal) / (signal @ signal) * signal
    other = other / other.norm() * signal.norm()
    for decibels in (-5.0, 0.0, 20.0):
        decoded = signal + 10 ** (-decibels / 20) * other
        assert si_sdr(signal, decoded) == pytest.approx(decibels, abs=1e-6)
        assert si_sdr(signal, -3 * decoded + 7) == pytest.approx(decibels, abs=1e-6)  # any scale and mean


def test_the_mel_distance_of_another_level_is_its_logarithm_at_every_scale() -> None:
    """Noise stands far above the floor in every band that has a bin; bands without one are at the floor in both."""
    clip = 100 * noise(0)
    found = mel_distance(clip, 2 * clip, RATE)
    assert 0.9 * len(SCALES) * math.log10(2) < found <= len(SCALES) * math.log10(2) + 1e-9
    assert mel_distance(clip, clip.clone(), RATE) == 0
    assert mel_distance(2 * clip, clip, RATE) == pytest.approx(found)
    assert mel_distance(clip, -clip, RATE) == pytest.approx(0, abs=1e-9)  # magnitudes alone count
    assert mel_distance(clip, 0 * clip, RATE) > 3 * len(SCALES)


def test_the_mel_distance_of_one_scale_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tones of other levels: one band differs, by the logarithm of their ratio, and the others by leakage alone."""
    monkeypatch.setattr("mntp.metrics.codec.mel_distance.SCALES", {512: 1})
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    tone = (2 * math.pi * 4000 * time).sin()
    assert mel_distance(tone, 10 * tone, RATE) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(("name", "best"), [("stoi", 1.0), ("pesq", 4.64)])
def test_scores_of_speech_fall_with_noise(name: str, best: float) -> None:
    pytest.importorskip({"stoi": "pystoi", "pesq": "pesq"}[name])
    measure = {"stoi": stoi, "pesq": pesq}[name]
    speech = syllables()
    loud = noise(1, len(speech)) * speech.std()
    values = [measure(speech, speech + share * loud, RATE) for share in (0.0, 0.1, 0.5, 2.0)]
    assert values[0] == pytest.approx(best, abs=0.01)
    assert values == sorted(values, reverse=True) and values[-1] < 0.7 * values[0]


def test_stoi_of_a_moment_is_refused() -> None:
    pytest.importorskip("pystoi")
    with pytest.raises(ValueError, match=r"STOI needs 0\.4 s"):
        stoi(noise(0, 3000), noise(1, 3000), RATE)


def test_pesq_of_silence_is_refused() -> None:
    pytest.importorskip("pesq")
    with pytest.raises(ValueError, match="PESQ can't score this clip"):
        pesq(1e-9 * noise(0), 0 * noise(1), RATE)


def test_scores_of_a_set_are_means_of_its_clips() -> None:
    clips = [noise(seed, 4000 + 500 * seed) for seed in range(3)]
    decoded = [clip + 0.1 * noise(9, len(clip)) for clip in clips]
    scores = codec_scores(clips, decoded, RATE)
    assert set(scores) == {"si_sdr", "mel_distance"}
    assert scores["si_sdr"].clips.tolist() == [si_sdr(*pair) for pair in zip(clips, decoded, strict=True)]
    assert scores["mel_distance"].value == pytest.approx(
        sum(mel_distance(*pair, RATE) for pair in zip(clips, decoded, strict=True)) / 3
    )


def test_what_cannot_be_scored_is_named() -> None:
    clips = [noise(0), noise(1)]
    with pytest.raises(ValueError, match=r"clip 1: .*got \[16000\] and \[15999\]"):
        codec_scores(clips, [clips[0], clips[1][:-1]], RATE)
    with pytest.raises(ValueError, match="clip 0: the original is silent"):
        codec_scores([0 * clips[0]], [clips[0]], RATE)
    with pytest.raises(ValueError, match="got 1 and 2"):
        codec_scores(clips, clips[:1], RATE)
    with pytest.raises(ValueError, match="NaN"):
        si_sdr(clips[0], math.nan * clips[0])
    with pytest.raises(ValueError, match="more than 1024 samples"):
        mel_distance(noise(0, 1024), noise(1, 1024), RATE)

"""The audio front end: its constants, its inverse, and files that can't be used."""

import math
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from mntp.audio.files import AudioError, read_audio, write_audio
from mntp.audio.griffin_lim import griffin_lim
from mntp.audio.log_mel import HOP, LOG_FLOOR, SAMPLE_RATE, LogMel, fit_length, normalise


def slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Auditory-toolbox scale: linear (200/3 Hz per mel) below 1 kHz, logarithmic (6.4 in 27 mels) above."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def reference_log_mel(samples: np.ndarray) -> np.ndarray:
    """AudioLDM's front end from its definition: explicit frames, explicit DFT, hand-written filters."""
    padded = np.concatenate([samples[432:0:-1], samples, samples[-2:-434:-1]])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    dft = np.exp(-2j * np.pi * np.outer(np.arange(1024), np.arange(513)) / 1024)
    frames = np.stack([padded[start : start + 1024] for start in range(0, len(padded) - 1023, 160)])
    magnitude = np.abs((frames * window) @ dft)
    edges = slaney_hz(np.linspace(0, 15 + 27 * math.log(8) / math.log(6.4), 66))
    bins = np.arange(513) * 16_000 / 1024
    mel = np.empty((len(frames), 64))
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        triangle = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
        mel[:, band] = magnitude @ (triangle * 2 / (high - low))
    return np.log(np.maximum(mel, 1e-5))


def noise(samples: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def decibels(log_ratio: Tensor) -> float:
    return 20 / math.log(10) * log_ratio.square().mean().sqrt().item()


def centre_of_energy(waveform: Tensor) -> float:
    """Mean time of the energy of waveform [1, samples], in samples."""
    energy = waveform[0].square()
    return ((energy * torch.arange(len(energy))).sum() / energy.sum()).item()


@pytest.fixture
def chords() -> Tensor:
    """Four decaying chords with a little noise, [4, 40960]."""
    time = torch.arange(40_960) / SAMPLE_RATE
    tones = [sum(torch.sin(2 * math.pi * f * k * time) / k for k in (1, 2, 3)) for f in (180, 420, 900, 2100)]
    return normalise(torch.stack(tones) * torch.exp(-4 * (time % 0.64)) + 0.003 * noise(40_960))


def test_log_mel_equals_the_definition() -> None:
    waveform = noise(16_000).double() * torch.linspace(0, 0.3, 16_000)
    ours = LogMel().double()(waveform[None])[0].numpy()
    np.testing.assert_allclose(ours, reference_log_mel(waveform.numpy()), atol=2e-4)


def test_single_precision_is_close_to_double() -> None:
    waveform = 0.1 * noise(16_000)[None]
    torch.testing.assert_close(LogMel()(waveform), LogMel().double()(waveform.double()).float(), atol=1e-3, rtol=0)


def test_ten_seconds_and_a_bit_give_1024_frames_and_silence_is_the_floor() -> None:
    waveform = torch.zeros(1, 163_840)
    waveform[:, :80_000] = noise(80_000)
    log_mel = LogMel()(waveform)
    assert log_mel.shape == (1, 1024, 64)
    assert log_mel[:, -500:].eq(math.log(LOG_FLOOR)).all()
    assert log_mel[:, :500].gt(math.log(LOG_FLOOR)).all()


def test_constants_of_the_front_end_stay_out_of_checkpoints() -> None:
    assert not LogMel().state_dict()


@pytest.mark.parametrize("samples", [320, 16_001])
def test_log_mel_says_what_length_it_needs(samples: int) -> None:
    with pytest.raises(ValueError, match=f"{samples} samples.*multiple of 160 above 432.*fit_length"):
        LogMel()(torch.zeros(1, samples))


def test_griffin_lim_comes_back_to_the_mel_it_was_given(chords: Tensor) -> None:
    log_mel = LogMel()(chords)
    errors = [decibels(LogMel()(griffin_lim(log_mel, n)) - log_mel) for n in (0, 8, 32)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2.5
    assert griffin_lim(log_mel, 1).shape == chords.shape


def test_griffin_lim_is_deterministic_and_ignores_neighbours(chords: Tensor) -> None:
    log_mel = LogMel()(chords)
    together = griffin_lim(log_mel, 4, seed=3)
    assert together.equal(griffin_lim(log_mel, 4, seed=3))
    assert not together.allclose(griffin_lim(log_mel, 4, seed=4), atol=1e-2)
    torch.testing.assert_close(together[2:3], griffin_lim(log_mel[2:3], 4, seed=3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("onset", [0, 4000, 12_345, 15_900])
def test_griffin_lim_keeps_time(onset: int) -> None:
    """A burst comes back where it was, to within half a hop: half a window of shift would be 512 samples."""
    burst = torch.zeros(1, 16_000)
    burst[0, onset : onset + 800] = noise(800)[: 16_000 - onset]
    again = griffin_lim(LogMel()(burst), 32)
    assert abs(centre_of_energy(again) - centre_of_energy(burst)) < HOP / 2


def test_griffin_lim_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="-1 iterations"):
        griffin_lim(torch.zeros(1, 16, 64), -1)
    with pytest.raises(ValueError, match="2 frames"):
        griffin_lim(torch.zeros(1, 2, 64), 4)


def test_normalise_forgets_offset_and_loudness_but_not_shape() -> None:
    waveform = noise(1000)
    expected = normalise(waveform)
    torch.testing.assert_close(normalise(5 + 0.01 * waveform), expected, atol=1e-3, rtol=0)
    assert expected.abs().max().item() == pytest.approx(0.5)
    assert abs(expected.mean()) < 1e-6
    assert normalise(torch.zeros(2, 10)).eq(0).all()


def test_fit_length_works_at_the_end_only() -> None:
    waveform = torch.arange(1.0, 7.0).view(2, 3)
    assert fit_length(waveform, 2).tolist() == [[1, 2], [4, 5]]
    assert fit_length(waveform, 5).tolist() == [[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]]
    assert fit_length(waveform, 3).equal(waveform)


def test_written_audio_is_pcm16_clipped_and_read_back(tmp_path: Path) -> None:
    waveform = torch.tensor([0.0, 0.25, -0.5, 2.0, -3.0])
    write_audio(tmp_path / "a.wav", waveform)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
    torch.testing.assert_close(read_audio(tmp_path / "a.wav"), waveform.clamp(-1, 1), atol=1e-4, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_reading_takes_channel_0_and_resamples(tmp_path: Path) -> None:
    time = np.arange(44_100) / 44_100
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 440 * time), 0.5 * np.sin(2 * np.pi * 990 * time)], axis=1)
    soundfile.write(tmp_path / "stereo.flac", stereo, 44_100)
    waveform = read_audio(tmp_path / "stereo.flac")
    assert len(waveform) == SAMPLE_RATE
    assert waveform.dtype == torch.float32
    spectrum = torch.fft.rfft(waveform).abs()
    assert spectrum.argmax() == 440
    assert spectrum[990] < 0.01 * spectrum[440]


def test_unusable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "void.wav").touch()
    (tmp_path / "plain.raw").write_bytes(bytes(64))
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), SAMPLE_RATE)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), SAMPLE_RATE, subtype="FLOAT")
    reasons = {
        "missing.wav": "no such audio file",
        "text.wav": "not readable",
        "void.wav": "not readable",
        "plain.raw": "not readable",
        "empty.wav": "0 samples",
        "nan.wav": "not finite",
        ".": "no such audio file",
    }
    for name, reason in reasons.items():
        with pytest.raises(AudioError, match=reason) as caught:
            read_audio(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("waveform", [torch.zeros(1, 10), torch.tensor([0.0, math.inf])])
def test_an_unwritable_waveform_leaves_no_file(tmp_path: Path, waveform: Tensor) -> None:
    with pytest.raises(ValueError, match=r"bad\.wav"):
        write_audio(tmp_path / "bad.wav", waveform)
    assert not list(tmp_path.iterdir())

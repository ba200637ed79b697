"""Reading and writing audio files."""

import io
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from mntp.audio.log_mel import SAMPLE_RATE
from mntp.io.files import atomic_write


class AudioError(ValueError):
    """An audio file can't be used; the message names it."""


def read_audio(path: Path, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Read channel 0 of an audio file.

    Args:
        path: any format that libsndfile reads (WAV, FLAC, OGG, MP3 ...).
        sample_rate: of the result, in Hz; the file is resampled to it.

    Returns:
        [samples] float32.

    Raises:
        AudioError: as `read_channel`.
    """
    return change_rate(*read_channel(path), sample_rate)


def change_rate(waveform: Tensor, before: int, after: int) -> Tensor:
    """Resample waveform [samples] from one sample rate to another, in Hz; at equal rates it stays as it is."""
    return waveform if before == after else resample(waveform, before, after)


def read_channel(path: Path) -> tuple[Tensor, int]:
    """Read channel 0 of an audio file as it is stored.

    Args:
        path: any format that libsndfile reads (WAV, FLAC, OGG, MP3 ...).

    Returns:
        [samples] float32, full scale 1, and the file's sample rate in Hz.

    Raises:
        AudioError: the file is missing, unreadable, empty, or holds a sample that is not finite.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such audio file; check the path")
    try:
        samples, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError, OSError) as error:  # TypeError: a headerless .raw file
        reason = getattr(error, "error_string", str(error))
        raise AudioError(f"{path}: not readable as audio ({reason}); convert it to WAV or FLAC") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: holds 0 samples; remove it or replace it")
    waveform = torch.from_numpy(samples[:, 0].copy())
    if not torch.isfinite(waveform).all():
        raise AudioError(f"{path}: holds samples that are not finite numbers; remove it or replace it")
    return waveform, file_rate


def write_audio(path: Path, waveform: Tensor, sample_rate: int = SAMPLE_RATE) -> None:
    """Write waveform [samples], clipped to [-1, 1], as a mono 16-bit WAV file, whole or not at all.

    Raises:
        ValueError: `waveform` is not one-dimensional, or holds a sample that is not finite.
        OSError: the disk is full or the folder can't be written.
    """
    if waveform.dim() != 1 or not torch.isfinite(waveform).all():
        raise ValueError(f"{path}: got a waveform of shape {tuple(waveform.shape)}; expected [samples], all finite")
    samples = waveform.detach().cpu().clamp(-1.0, 1.0).numpy()
    encoded = io.BytesIO()  # libsndfile can't report a full disk through a Python file
    soundfile.write(encoded, samples, sample_rate, subtype="PCM_16", format="WAV")
    with atomic_write(path, "wb") as file:
        file.write(encoded.getvalue())

"""How the AudioLDM evaluation toolkit loads a clip (haoheliu/audioldm_eval, datasets/load_mel.py)."""

from pathlib import Path

from torch import Tensor
from torchaudio.functional import resample

from mntp.audio.files import read_channel
from mntp.audio.log_mel import fit_length

MIN_SAMPLES = 32_000
"""Shorter clips end in silence up to this length: 2 s at 16 kHz, 1 s at 32 kHz."""


def read_clip(path: Path, sample_rate: int) -> Tensor:
    """Read a clip: first channel, its mean taken off, then resampled, then filled up to 32,000 samples.

    The mean is taken over the whole clip before resampling; long clips stay long, and levels are left alone. A file
    that can't be used is an error here; the toolkit takes the next file in its place.

    Args:
        path: any format that libsndfile reads.
        sample_rate: of the result, in Hz.

    Returns:
        [samples] float32, samples >= 32,000.

    Raises:
        AudioError: the file is missing, unreadable, empty, or holds a sample that is not finite.
    """
    waveform, file_rate = read_channel(path)
    waveform = waveform - waveform.mean()
    if file_rate != sample_rate:
        waveform = resample(waveform, file_rate, sample_rate)
    return fit_length(waveform, max(len(waveform), MIN_SAMPLES))

"""Multi-scale mel distance (the reconstruction loss of the Descript Audio Codec, arXiv 2306.06546)."""

import warnings

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from mntp.metrics.codec.check import check_pair

SCALES = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}
"""Samples of a window -> number of mel bands."""
FLOOR = 1e-5


def mel_distance(reference: Tensor, decoded: Tensor, sample_rate: int) -> float:
    """Sum over seven windows of the mean |log10 mel - log10 mel|; 0 for equal clips, lower is better.

    Magnitudes of Hann windows at a hop of a quarter of them, in Slaney's bands up to half the sample rate, at least
    1e-5. Levels matter: twice the amplitude costs log10 2 = 0.30 a scale, where nothing lies at the floor.

    Args:
        reference: the original [samples].
        decoded: [samples].
        sample_rate: of both, in Hz.

    Raises:
        ValueError: the clips aren't equally long, finite and mono, have no more than 1,024 samples, or the original is
            silent.
    """
    check_pair(reference, decoded)
    if len(reference) <= max(SCALES) // 2:
        raise ValueError(f"expected more than {max(SCALES) // 2} samples, got {len(reference)}")
    pair = torch.stack([reference, decoded]).double()
    distance = 0.0
    for window, num_bands in SCALES.items():
        original, other = _log_mel(pair, window, num_bands, sample_rate)
        distance += (original - other).abs().mean().item()
    return distance


def _log_mel(waveforms: Tensor, window: int, num_bands: int, sample_rate: int) -> Tensor:
    """Waveforms [2, samples] -> log10 magnitudes [2, frames, bands]."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")  # as in the paper
        filters = melscale_fbanks(window // 2 + 1, 0.0, sample_rate / 2, num_bands, sample_rate, "slaney", "slaney")
    hann = torch.hann_window(window, dtype=torch.float64)
    spectra = torch.stft(waveforms, window, window // 4, window=hann, pad_mode="reflect", return_complex=True)
    return (spectra.abs().mT @ filters.double()).clamp(min=FLOOR).log10()

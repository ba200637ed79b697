"""Phase recovery: the fast Griffin-Lim algorithm on log-mel spectrograms."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mntp.audio.log_mel import HOP, LOG_FLOOR, NUM_FFT, PADDING, mel_filters, stft

# Multiplicative updates that spread a mel band over its frequency bins: 5 leave about 1 dB of error for the
# price of 5 Griffin-Lim iterations (0: 3 dB, 30: 0.1 dB, but Griffin-Lim itself stays above 1.4 dB).
_NUM_SPREADING_UPDATES = 5
# Momentum of the fast Griffin-Lim (Perraudin, Balazs, Sondergaard 2013).
_MOMENTUM = 0.99
# Clips inverted together: few enough for the spectra to stay in the processor's cache.
_CLIPS_PER_CHUNK = 4


def griffin_lim(log_mel: Tensor, num_iterations: int, seed: int = 0, first_frame: int = 0) -> Tensor:
    """Find a waveform with a given log-mel spectrogram, by the fast Griffin-Lim algorithm.

    The STFT is that of `LogMel`, including the reflected edges, so that frames keep their place in time. Every clip
    starts from the same random phases, so that the result does not depend on the rest of the batch.

    Args:
        log_mel: [B, frames, 64] natural-log mel magnitudes, frames >= 3.
        num_iterations: projections onto the consistent spectrograms; 0 keeps the random phases.
        seed: of the initial phases.
        first_frame: number of the first frame in the longer clip that these frames are part of. They start from the
            phases that they have there and, except near the ends, give the same sound (`mntp.inference.streaming`).

    Returns:
        [B, frames * 160] float32.

    Raises:
        ValueError: `num_iterations` is negative, or there are too few frames to be reflected.
    """
    num_frames = log_mel.shape[1]
    if num_iterations < 0 or num_frames * HOP <= PADDING:
        raise ValueError(
            f"Griffin-Lim got {num_iterations} iterations and {num_frames} frames; "
            f"expected at least 0 iterations and {PADDING // HOP + 1} frames"
        )
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(first_frame + num_frames, NUM_FFT // 2 + 1, generator=generator)
    phase = 2 * math.pi * uniform[first_frame:].to(log_mel.device)
    window = torch.hann_window(NUM_FFT, device=log_mel.device)
    filters = mel_filters().to(log_mel.device)
    chunks = torch.split(log_mel.float(), _CLIPS_PER_CHUNK)
    return torch.cat(
        [_recover_phase(_linear_magnitude(chunk, filters), phase, window, num_iterations) for chunk in chunks]
    )


def istft(spectra: Tensor, window: Tensor) -> Tensor:
    """Least-squares waveform [B, frames * 160] of spectra [B, frames, 513]."""
    num_frames = spectra.shape[1]
    summed = _overlap_add(torch.fft.irfft(spectra, n=NUM_FFT) * window)
    weight = _overlap_add((window**2).expand(1, num_frames, NUM_FFT))
    inside = slice(PADDING, PADDING + num_frames * HOP)
    return summed[:, inside] / weight[:, inside]


def _overlap_add(frames: Tensor) -> Tensor:
    """Sum frames [B, frames, 1024] at a hop of 160 into [B, (frames + 6) * 160].

    `torch.istft` refuses `center=False` with a Hann window, because the very first sample has weight zero;
    that sample lies in the padding, which `istft` cuts off.
    """
    batch, num_frames, length = frames.shape
    hops_per_frame = -(-length // HOP)
    hops = F.pad(frames, (0, hops_per_frame * HOP - length)).view(batch, num_frames, hops_per_frame, HOP)
    summed = frames.new_zeros(batch, num_frames + hops_per_frame - 1, HOP)
    for shift in range(hops_per_frame):
        summed[:, shift : shift + num_frames] += hops[:, :, shift]
    return summed.flatten(1)


def _linear_magnitude(log_mel: Tensor, filters: Tensor) -> Tensor:
    """Non-negative magnitudes [B, frames, 513] whose mel bands are close to exp(log_mel) [B, frames, 64].

    Multiplicative updates for the generalised Kullback-Leibler divergence (Richardson-Lucy): they weigh
    relative errors, as the logarithm does; a clamped pseudo-inverse spoils the quiet bands beside loud ones.
    """
    mel = log_mel.exp()
    bin_weight = filters.sum(dim=1).clamp(min=LOG_FLOOR)
    magnitude = (mel / filters.sum(dim=0)) @ filters.T / bin_weight
    for _ in range(_NUM_SPREADING_UPDATES):
        ratio = mel / (magnitude @ filters).clamp(min=1e-9)
        magnitude = magnitude * (ratio @ filters.T) / bin_weight
    return magnitude


def _recover_phase(magnitude: Tensor, phase: Tensor, window: Tensor, num_iterations: int) -> Tensor:
    """Waveform [B, frames * 160] of magnitude [B, frames, 513], from phase [frames, 513] in radians."""
    waveform = istft(torch.polar(magnitude, phase.expand_as(magnitude)), window)
    previous = torch.zeros_like(magnitude, dtype=torch.complex64)
    for _ in range(num_iterations):
        spectra = stft(waveform, window)
        accelerated = spectra - previous * (_MOMENTUM / (1 + _MOMENTUM))
        previous = spectra
        waveform = istft(accelerated * (magnitude / (accelerated.abs() + 1e-12)), window)
    return waveform

"""Audio: reading, writing, normalising, AudioLDM's log-mel front end and its inversion by Griffin-Lim.

The one home of these, for tokenizers and judges alike. The constants are those of AudioLDM's training code:
16 kHz; 1024-point periodic Hann window, hop 160; 64 Slaney bands up to 8 kHz; natural logarithm, floor 1e-5.
"""

import io
import math
from pathlib import Path

import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks, resample

from mntp.files import atomic_write

SAMPLE_RATE = 16_000
NUM_FFT = 1024
HOP = 160
NUM_MELS = 64
PADDING = (NUM_FFT - HOP) // 2
LOG_FLOOR = 1e-5

# Multiplicative updates that spread a mel band over its frequency bins: 5 leave about 1 dB of error for the
# price of 5 Griffin-Lim iterations (0: 3 dB, 30: 0.1 dB, but Griffin-Lim itself stays above 1.4 dB).
_NUM_SPREADING_UPDATES = 5
# Momentum of the fast Griffin-Lim (Perraudin, Balazs, Sondergaard 2013).
_MOMENTUM = 0.99
# Clips inverted together: few enough for the spectra to stay in the processor's cache.
_CLIPS_PER_CHUNK = 4


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
    waveform, file_rate = read_channel(path)
    return waveform if file_rate == sample_rate else resample(waveform, file_rate, sample_rate)


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


def normalise(waveform: Tensor) -> Tensor:
    """Centre waveform [..., samples] and scale its peak to 0.5, clip by clip, as AudioLDM does.

    Absolute loudness is lost here; silence stays silence.
    """
    centred = waveform - waveform.mean(dim=-1, keepdim=True)
    return centred / (centred.abs().amax(dim=-1, keepdim=True) + 1e-8) * 0.5


def fit_length(waveform: Tensor, samples: int) -> Tensor:
    """Cut waveform [..., any] at its end, or fill it with zeros there, to [..., samples]."""
    return F.pad(waveform[..., :samples], (0, max(0, samples - waveform.shape[-1])))


class LogMel(nn.Module):
    """AudioLDM's log-mel spectrogram: magnitude, `center=False`, reflected by 432 samples at both ends.

    163,840 samples give exactly 1024 frames; frame k is centred on sample 160 k + 80. A frame of zeros gives
    log(1e-5) in every band.
    """

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Constants, not parameters: they are left out of checkpoints and of a tokenizer's fingerprint.
        self.register_buffer("window", torch.hann_window(NUM_FFT), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Analyse waveform [B, samples], float32 at 16 kHz, to log magnitudes [B, samples / 160, 64].

        Raises:
            ValueError: `samples` is no multiple of 160, or not above 432 (too short to be reflected).
        """
        samples = waveform.shape[-1]
        if samples % HOP or samples <= PADDING:
            raise ValueError(
                f"{samples} samples can't be analysed; expected a multiple of {HOP} above {PADDING}: "
                "cut or pad it with fit_length"
            )
        magnitude = stft(waveform, self.window).abs()
        return torch.log((magnitude @ self.filters).clamp(min=LOG_FLOOR))


def griffin_lim(log_mel: Tensor, num_iterations: int, seed: int = 0, first_frame: int = 0) -> Tensor:
    """Find a waveform with a given log-mel spectrogram, by the fast Griffin-Lim algorithm.

    The STFT is `LogMel`'s own, reflected edges included, so that frames keep their place in time. Every clip
    starts from the same random phases: what it decodes to does not depend on its neighbours in the batch.

    Args:
        log_mel: [B, frames, 64] natural-log mel magnitudes, frames >= 3.
        num_iterations: projections onto the consistent spectrograms; 0 keeps the random phases.
        seed: of the initial phases.
        first_frame: place of the first frame in a longer clip that these are part of. They start from the phases that
            they have there, and so, but for the ends, become the same sound (`mntp.streaming`).

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


def mel_filters() -> Tensor:
    """Triangular Slaney filters [513, 64]."""
    return melscale_fbanks(
        n_freqs=NUM_FFT // 2 + 1,
        f_min=0.0,
        f_max=SAMPLE_RATE / 2,
        n_mels=NUM_MELS,
        sample_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )


def stft(waveform: Tensor, window: Tensor) -> Tensor:
    """Spectra [B, frames, 513] of waveform [B, samples] reflected at both ends."""
    padded = F.pad(waveform, (PADDING, PADDING), mode="reflect")
    return torch.fft.rfft(padded.unfold(-1, NUM_FFT, HOP) * window)


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

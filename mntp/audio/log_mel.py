"""AudioLDM's log-mel spectrogram and normalisation of waveforms, for tokenizers and judges.

The constants are those of AudioLDM's training code: 16 kHz; 1024-point periodic Hann window, hop 160; 64 Slaney bands
up to 8 kHz; natural logarithm, floor 1e-5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

SAMPLE_RATE = 16_000
NUM_FFT = 1024
HOP = 160
NUM_MELS = 64
PADDING = (NUM_FFT - HOP) // 2
LOG_FLOOR = 1e-5


def normalise(waveform: Tensor) -> Tensor:
    """Centre waveform [..., samples] and scale its peak to 0.5, clip by clip, as AudioLDM does.

    Absolute loudness is lost; silence stays silent.
    """
    centred = waveform - waveform.mean(dim=-1, keepdim=True)
    return centred / (centred.abs().amax(dim=-1, keepdim=True) + 1e-8) * 0.5


def fit_length(waveform: Tensor, samples: int) -> Tensor:
    """Cut or zero-pad waveform [..., any] at its end to [..., samples]."""
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

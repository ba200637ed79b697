"""The log-mel front ends of VGGish and of PANNs, which LAION's CLAP shares with other constants.

Both differ from the tokenizers' front end (`mntp.audio.log_mel.LogMel`) in scale, padding, filters and logarithm.
"""

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

NUM_MELS = 64


class VGGishLogMel(nn.Module):
    """VGGish's log-mel patches at 16 kHz (harritaylor/torchvggish, mel_features.py), in float64 as there.

    Frames of 25 ms at a hop of 10 ms without padding; magnitudes of a 512-point transform; 64 triangles of unit
    height, linear in mel 1127 ln(1 + f / 700), over 125 to 7500 Hz; log(mel + 0.01).
    """

    frame_length = 400
    hop = 160
    num_fft = 512
    frames_per_patch = 96
    min_samples = frame_length + (frames_per_patch - 1) * hop

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(self.frame_length, dtype=torch.float64), persistent=False)
        self.register_buffer("filters", _vggish_filters(self.num_fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Cut waveform [B, samples] into patches [B, P, 96, 64] float32; an incomplete last patch is dropped.

        Raises:
            ValueError: too short for one patch.
        """
        if waveform.shape[-1] < self.min_samples:
            raise ValueError(
                f"VGGish needs at least {self.min_samples} samples, got {waveform.shape[-1]}: pad the clip"
            )
        frames = waveform.double().unfold(-1, self.frame_length, self.hop) * self.window
        magnitude = torch.fft.rfft(frames, n=self.num_fft).abs()
        log_mel = torch.log(magnitude @ self.filters + 0.01)
        patches = log_mel.unfold(1, self.frames_per_patch, self.frames_per_patch)
        return patches.transpose(-1, -2).float()


class DecibelMel(nn.Module):
    """PANNs' log-mel (torchlibrosa's Spectrogram and LogmelFilterBank): power, Slaney bands, decibels.

    Frames are centred, with reflected ends: samples // hop + 1 of them. Below 1e-10 of power lies -100 dB; there is
    no upper or relative bound.

    Args:
        sample_rate: in Hz.
        num_fft: points of the transform and of its periodic Hann window.
        hop: samples between frames.
        f_min: lower edge of the lowest of the 64 bands, in Hz.
        f_max: upper edge of the highest.
    """

    floor = 1e-10

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, num_fft: int, hop: int, f_min: float, f_max: float) -> None:
        super().__init__()
        self.num_fft, self.hop = num_fft, hop
        with torch.device("cpu"):  # torchaudio looks at the values, which a model on `meta` has not
            filters = melscale_fbanks(num_fft // 2 + 1, f_min, f_max, NUM_MELS, sample_rate, "slaney", "slaney")
        self.register_buffer("window", torch.hann_window(num_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Analyse waveform [B, samples], samples > num_fft / 2, to decibels [B, 1, frames, 64]."""
        spectra = torch.stft(
            waveform, self.num_fft, self.hop, window=self.window, pad_mode="reflect", return_complex=True
        )
        power = spectra.real.square() + spectra.imag.square()
        mel = power.transpose(-1, -2) @ self.filters
        return 10 * mel.clamp(min=self.floor).log10()[:, None]


def _vggish_filters(num_fft: int, sample_rate: int = 16_000, f_min: float = 125, f_max: float = 7500) -> Tensor:
    """Triangles [bins, 64] float64: linear in mel, not in Hz, and blind to the lowest bin."""
    hertz = torch.linspace(0, sample_rate / 2, num_fft // 2 + 1, dtype=torch.float64)
    low, high = (_vggish_mel(torch.tensor(f, dtype=torch.float64)) for f in (f_min, f_max))
    edges = low + (high - low) * torch.arange(NUM_MELS + 2, dtype=torch.float64) / (NUM_MELS + 1)
    mel = _vggish_mel(hertz)[:, None]
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    filters[0] = 0
    return filters


def _vggish_mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)

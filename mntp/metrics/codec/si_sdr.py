"""Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, arXiv 1811.02508)."""

from torch import Tensor
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from mntp.metrics.codec.check import check_pair


def si_sdr(reference: Tensor, decoded: Tensor) -> float:
    """10 log10 (|a s|^2 / |a s - d|^2) in dB, with a = <d, s> / |s|^2 and both means taken off; higher is better.

    It asks for the waveform itself: a codec that keeps only what is heard, or shifts a clip by a few samples, gets a
    low value.

    Args:
        reference: the original s [samples].
        decoded: d [samples].

    Raises:
        ValueError: the clips aren't equally long, finite and mono, or the original is silent.
    """
    check_pair(reference, decoded)
    return scale_invariant_signal_distortion_ratio(decoded.double(), reference.double(), zero_mean=True).item()

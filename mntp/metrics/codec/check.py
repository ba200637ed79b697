"""What the codec scores ask of a pair of clips."""

from torch import Tensor


def check_pair(reference: Tensor, decoded: Tensor) -> None:
    """Refuse clips that aren't two equally long, finite, mono waveforms.

    Raises:
        ValueError: they aren't, or the reference is silent.
    """
    if reference.ndim != 1 or reference.shape != decoded.shape or reference.numel() == 0:
        raise ValueError(
            "expected an original and a decoded waveform [samples] of equal length, "
            f"got {list(reference.shape)} and {list(decoded.shape)}: cut or pad one of them"
        )
    if not (reference.isfinite().all() and decoded.isfinite().all()):
        raise ValueError("a waveform holds NaN or infinite samples")
    if not reference.any():
        raise ValueError("the original is silent, and nothing can be measured against it: leave this clip out")

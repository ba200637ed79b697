"""Perceptual evaluation of speech quality (ITU-T P.862.2, wide band), by the package pesq."""

from torch import Tensor
from torchaudio.functional import resample

from mntp.metrics.codec.check import check_pair

SAMPLE_RATE = 16_000


def pesq(reference: Tensor, decoded: Tensor, sample_rate: int) -> float:
    """Predicted mean opinion score, from 1.04 to 4.64; higher is better. Meant for speech.

    Args:
        reference: the original [samples].
        decoded: [samples].
        sample_rate: of both, in Hz; they are resampled to 16 kHz.

    Raises:
        ValueError: the clips aren't equally long, finite and mono, no speech is found in them, or pesq isn't installed.
    """
    check_pair(reference, decoded)
    try:
        from pesq import PesqError
        from pesq import pesq as measure
    except ImportError as error:
        raise ValueError("PESQ needs the package pesq: pip install 'mntp[codec]'") from error
    pair = [resample(wave.float(), sample_rate, SAMPLE_RATE).numpy() for wave in (reference, decoded)]
    try:
        return float(measure(SAMPLE_RATE, *pair, "wb"))
    except (PesqError, ValueError) as error:  # the second of a clip without any power
        raise ValueError(f"PESQ can't score this clip: {error}") from error

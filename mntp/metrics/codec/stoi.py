"""Short-time objective intelligibility of speech (Taal et al. 2011), by the package pystoi."""

import warnings

from torch import Tensor

from mntp.metrics.codec.check import check_pair


def stoi(reference: Tensor, decoded: Tensor, sample_rate: int) -> float:
    """Correlation of short-time band envelopes, from about 0 to 1; higher is better. Meant for speech.

    Args:
        reference: the original [samples].
        decoded: [samples].
        sample_rate: of both, in Hz; pystoi resamples to 10 kHz.

    Raises:
        ValueError: the clips aren't equally long, finite and mono, hold less than 0.4 s that isn't silent, or pystoi
            isn't installed.
    """
    check_pair(reference, decoded)
    try:
        from pystoi import stoi as measure
    except ImportError as error:
        raise ValueError("STOI needs the package pystoi: pip install 'mntp[codec]'") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(measure(reference.double().numpy(), decoded.double().numpy(), sample_rate))
        except RuntimeWarning as error:
            raise ValueError("STOI needs 0.4 s of sound that isn't silent; the clip has less") from error

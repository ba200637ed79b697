"""The scores of a codec over a set of clips, with their spread over clips."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mntp.metrics.codec.mel_distance import mel_distance
from mntp.metrics.codec.pesq import pesq
from mntp.metrics.codec.si_sdr import si_sdr
from mntp.metrics.codec.stoi import stoi
from mntp.metrics.jackknife import Score, mean_score

GENERAL = ("si_sdr", "mel_distance")
SPEECH = ("stoi", "pesq")
"""Scores of speech alone; they need the extra `codec`."""


def codec_scores(
    references: Sequence[Tensor], decoded: Sequence[Tensor], sample_rate: int, speech: bool = False
) -> dict[str, Score]:
    """Means over clips of `si_sdr` (dB) and `mel_distance` (log10 units), and of `stoi` and `pesq` for speech.

    Args:
        references: original clips [samples], of any lengths.
        decoded: the same clips as a codec gives them back.
        sample_rate: of all of them, in Hz.
        speech: whether they are speech.

    Raises:
        ValueError: there are no clips or other numbers of them, or one can't be scored; the message says which.
    """
    if not references or len(references) != len(decoded):
        raise ValueError(f"expected as many decoded clips as originals, got {len(decoded)} and {len(references)}")
    names = (*GENERAL, *(SPEECH if speech else ()))
    values: dict[str, list[float]] = {name: [] for name in names}
    for number, (original, other) in enumerate(zip(references, decoded, strict=True)):
        try:
            found = {"si_sdr": si_sdr(original, other), "mel_distance": mel_distance(original, other, sample_rate)}
            if speech:
                found |= {"stoi": stoi(original, other, sample_rate), "pesq": pesq(original, other, sample_rate)}
        except ValueError as error:
            raise ValueError(f"clip {number}: {error}") from error
        for name in names:
            values[name].append(found[name])
    return {name: mean_score(torch.tensor(of_name, dtype=torch.float64)) for name, of_name in values.items()}

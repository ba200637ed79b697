"""How often systems are called separable, with references and systems whose true Frechet distances are known.

References are Gaussian, and a system's clips resemble their own references (correlation 0.5). A *shifted* system has
another mean, a *narrow* one too little variance, so that distances of any size are known exactly.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from experiments.bench.common import print_line
from experiments.scoring.intervals import COVERAGE, interval, paired_difference
from mntp.metrics.score_sets import frechet
from mntp.seeding import make_generator

NUM_FEATURES = 64  # the embedded judge's
TRUE_DISTANCE = 12.7
LARGER = {"white": 1.15, "judge": 1.3}  # times the distance of the second system where the two differ
RESEMBLANCE = 0.5
TOTAL_VARIANCE = {"white": 64.0, "judge": 44.0}  # raw distances of 128 clips as those of 128 of the corpus' clips
EFFECTIVE_RANK = 9.0  # of the judge's features: (sum of variances)^2 / sum of their squares
NUM_RESAMPLES = 200

PAIRS = {
    "equal distance, shifted and narrow": ("shifted", "narrow", False),
    "twins, shifted": ("shifted", "shifted", False),
    "twins, narrow": ("narrow", "narrow", False),
    "different, both shifted": ("shifted", "shifted", True),
    "different, both narrow": ("narrow", "narrow", True),
}
"""Pairs of systems by name: their kinds, and whether the second one's distance is larger."""


@dataclass(frozen=True)
class Row:
    """What was found of a pair of systems.

    Attributes:
        spectrum: of the features.
        pair: which systems.
        num_clips: of each set.
        true: the two true distances.
        raw: mean raw distances.
        corrected: mean corrected distances.
        covered: share of trials in which the corrected distances' intervals hold the true ones.
        separable: share of trials in which the permutation test over clips separates them.
        by_bootstrap: the same by a bootstrap interval of the raw difference; None where it wasn't tried.
        by_exchange: the same by exchanging clips and computing raw distances anew; None where it wasn't tried.
    """

    spectrum: str
    pair: str
    num_clips: int
    true: tuple[float, float]
    raw: tuple[float, float]
    corrected: tuple[float, float]
    covered: float
    separable: float
    by_bootstrap: float | None
    by_exchange: float | None


def deviations(spectrum: str) -> Tensor:
    """Standard deviations [64] of the features: all equal, or a power law of the judge's effective rank."""
    exponent = 0.0
    places = torch.arange(1, NUM_FEATURES + 1, dtype=torch.float64)
    if spectrum == "judge":
        low, high = 0.0, 3.0
        for _ in range(60):
            exponent = (low + high) / 2
            variances = places**-exponent
            too_flat = variances.sum() ** 2 / variances.square().sum() > EFFECTIVE_RANK
            low, high = (exponent, high) if too_flat else (low, exponent)
    variances = places**-exponent
    return (variances * TOTAL_VARIANCE[spectrum] / variances.sum()).sqrt()


def draw_system(kind: str, distance: float, reference: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    """Clips [n, 64] of a system at a true distance, of references [n, 64] of standard deviation 1."""
    noise = torch.randn(reference.shape, generator=generator, dtype=torch.float64)
    clips = RESEMBLANCE * reference + math.sqrt(1 - RESEMBLANCE**2) * noise
    total = deviation.square().sum()
    if kind == "narrow":
        return clips * deviation * (1 - (distance / total).sqrt())
    return clips * deviation + deviation * (distance / total).sqrt()


def simulate(spectrum: str, pair: str, num_clips: int, num_trials: int, num_compared: int = 0) -> Row:
    """Draw and compare two systems.

    Args:
        spectrum: `white` or `judge`.
        pair: a key of `PAIRS`.
        num_clips: of each set.
        num_trials: how often.
        num_compared: in how many of these the bootstrap and the exchange of clips are tried, too.
    """
    deviation = deviations(spectrum)
    kinds, larger = PAIRS[pair][:2], PAIRS[pair][2]
    true = (TRUE_DISTANCE, TRUE_DISTANCE * (LARGER[spectrum] if larger else 1.0))
    generator = make_generator("simulated scores", spectrum, pair, num_clips)
    raw, corrected, others = [], [], []
    covered = separable = 0
    for trial in range(num_trials):
        reference = torch.randn(num_clips, NUM_FEATURES, generator=generator, dtype=torch.float64)
        clips = reference * deviation
        systems = [draw_system(*system, reference, deviation, generator) for system in zip(kinds, true, strict=True)]
        scores = [frechet(list(clips), list(system)) for system in systems]
        first, second = (unbiased for _, unbiased in scores)
        found = paired_difference(first.value, first.clips.numpy(), second.value, second.clips.numpy())
        assert found is not None
        separable += found.separable
        raw.append([score.value for score, _ in scores])
        corrected.append([score.value for _, score in scores])
        for score, distance in zip((first, second), true, strict=True):
            ends = interval(score.value, score.clips.numpy(), score.floor)
            assert ends is not None
            covered += ends[0] <= distance <= ends[1]
        if trial < num_compared:
            others.append(
                [test(clips, systems[0], systems[1], generator) for test in (bootstrap_separates, exchange_separates)]
            )
    shares = torch.tensor(others, dtype=torch.float64).mean(0).tolist() if others else [None, None]
    return Row(
        spectrum,
        pair,
        num_clips,
        true,
        _means(raw),
        _means(corrected),
        covered / (2 * num_trials),
        separable / num_trials,
        *shares,
    )


def bootstrap_separates(reference: Tensor, one: Tensor, two: Tensor, generator: torch.Generator) -> bool:
    """Whether the 95 % percentile interval of the raw difference, moved to its value, leaves zero out."""
    drawn = torch.randint(len(reference), (NUM_RESAMPLES, len(reference)), generator=generator)
    difference = raw_distances(reference[drawn], one[drawn]) - raw_distances(reference[drawn], two[drawn])
    value = raw_distances(reference, one) - raw_distances(reference, two)
    ends = torch.tensor([(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], dtype=torch.float64)
    low, high = (value + (difference - difference.mean()).quantile(ends)).tolist()
    return low > 0 or high < 0


def exchange_separates(reference: Tensor, one: Tensor, two: Tensor, generator: torch.Generator) -> bool:
    """Whether the raw difference is rare among those of sets whose clips were exchanged at random."""
    exchanged = torch.rand(NUM_RESAMPLES, len(one), 1, generator=generator) < 0.5
    references = reference.expand(NUM_RESAMPLES, -1, -1)
    permuted = raw_distances(references, torch.where(exchanged, two, one))
    permuted -= raw_distances(references, torch.where(exchanged, one, two))
    observed = (raw_distances(reference, one) - raw_distances(reference, two)).abs()
    return (1 + int((permuted.abs() >= observed).sum())) / (NUM_RESAMPLES + 1) <= 1 - COVERAGE


def raw_distances(x: Tensor, y: Tensor) -> Tensor:
    """Raw Frechet distances [...] of sets [..., n, F] with n > F."""
    mean_x, mean_y = x.mean(-2), y.mean(-2)
    centred_x, centred_y = ((rows - rows.mean(-2, keepdim=True)) / (rows.shape[-2] - 1) ** 0.5 for rows in (x, y))
    root = torch.linalg.cholesky_ex(centred_x.mT @ centred_x).L
    inner = centred_y @ root
    norm = torch.linalg.eigvalsh(inner.mT @ inner).clamp(min=0).sqrt().sum(-1)
    spread = centred_x.square().sum((-2, -1)) + centred_y.square().sum((-2, -1))
    return (mean_x - mean_y).square().sum(-1) + spread - 2 * norm


def _means(pairs: list[list[float]]) -> tuple[float, float]:
    first, second = torch.tensor(pairs, dtype=torch.float64).mean(0).tolist()
    return first, second


def bench_scores(trials: int = 500, compared: int = 100, clips: int = 128) -> None:
    """Simulate pairs of systems of known distances, and count how often each test calls them different.

    Args:
        trials: how often each pair is drawn.
        compared: in how many of these the bootstrap and the exchange of clips are tried, too; they take longest.
        clips: of each set; more than 65, or the other tests can't be computed.

    Raises:
        ValueError: a number can't be used.
    """
    if trials < 1 or not 0 <= compared <= trials or clips <= NUM_FEATURES + 1:
        raise ValueError(
            f"bench scores: expected --trials >= 1, 0 <= --compared <= --trials, --clips > {NUM_FEATURES + 1}; "
            f"got {trials}, {compared}, {clips}"
        )
    for spectrum in TOTAL_VARIANCE:
        for pair in PAIRS:
            print_line("scores", **asdict(simulate(spectrum, pair, clips, trials, compared)))

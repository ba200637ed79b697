"""Laws of the ratio against their distribution functions; masks by count; what each way of hiding shows."""

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from mntp.masking import (
    CORRUPTIONS,
    ClippedNormal,
    Fixed,
    Gaussian,
    LinearNoise,
    MaskRatio,
    Mixture,
    TruncatedNormal,
    Uniform,
    VPNoise,
    Zero,
    kept_positions,
    num_hidden_in_mar,
    num_hidden_when_dropping,
    random_mask,
)

SAMPLES = 4000
# A Kolmogorov-Smirnov test at this level fails a right law once in ten thousand seeds; the seed is fixed.
LEVEL = 1e-4


def draws(law: MaskRatio, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    return [law.sample(generator) for _ in range(SAMPLES)]


def truncnorm(loc: float, scale: float, low: float, high: float) -> stats.rv_continuous:
    return stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)


@pytest.mark.parametrize(
    ("law", "cdf"),
    [
        (Uniform(0.2, 0.6), stats.uniform(0.2, 0.4).cdf),
        (ClippedNormal(0.5, 0.05), stats.norm(0.5, 0.05).cdf),  # 10 standard deviations from the ends: none is clipped
        (TruncatedNormal(1.0, 0.5), truncnorm(1.0, 0.5, 0, 1).cdf),
        (TruncatedNormal(1.0, 0.25, 0.7, 1.0), truncnorm(1.0, 0.25, 0.7, 1.0).cdf),
        (TruncatedNormal(0.85, 0.25, 0.55, 0.85), truncnorm(0.85, 0.25, 0.55, 0.85).cdf),
        (
            Mixture([ClippedNormal(0.5, 0.05), Uniform(0.0, 1.0)], [0.25, 0.75]),
            lambda r: 0.25 * stats.norm(0.5, 0.05).cdf(r) + 0.75 * r,
        ),
    ],
)
def test_draws_follow_the_law(law: MaskRatio, cdf: object) -> None:
    assert stats.kstest(draws(law), cdf).pvalue > LEVEL


A, B = ClippedNormal(0.75, 0.10), TruncatedNormal(1.0, 0.5)  # schedules A and B, and C is a mixture of them
TAIL = float(stats.norm.sf(1.0, 0.75, 0.10))  # of A beyond 1: moved to 1


@pytest.mark.parametrize(
    ("law", "cdf", "atoms"),
    [
        (Uniform(0.2, 0.6), stats.uniform(0.2, 0.4).cdf, {}),
        (B, truncnorm(1.0, 0.5, 0, 1).cdf, {}),
        (A, lambda r: stats.norm(0.75, 0.1).cdf(r) if r < 1 else 1.0, {1.0: TAIL}),
        (
            Mixture([A, B], [1, 3]),
            lambda r: 0.25 * (stats.norm(0.75, 0.1).cdf(r) if r < 1 else 1) + 0.75 * truncnorm(1.0, 0.5, 0, 1).cdf(r),
            {1.0: 0.25 * TAIL},
        ),
        (Fixed(0.7), lambda r: float(r >= 0.7), {0.7: 1.0}),
    ],
)
def test_the_distribution_functions_and_atoms_that_figure_5_shows(law: MaskRatio, cdf: Any, atoms: Any) -> None:
    for r in (-0.5, 0.0, 0.1, 0.3, 0.5, 0.699, 0.7, 0.9, 0.999, 1.0, 1.5):
        assert law.cdf(r) == pytest.approx(float(cdf(r)), abs=1e-9)
    assert {ratio: mass for ratio, mass in law.atoms.items() if mass > 1e-9} == pytest.approx(atoms, rel=1e-9)


@pytest.mark.parametrize("law", [A, Mixture([A, B], [0.5, 0.5])])
def test_schedules_with_an_atom_follow_their_law(law: MaskRatio) -> None:
    """The atom by a binomial test and the rest by Kolmogorov-Smirnov, each at half the level."""
    values = draws(law)
    at_one = sum(value == 1.0 for value in values)
    assert stats.binomtest(at_one, SAMPLES, law.atoms[1.0]).pvalue > LEVEL / 2
    below = [value for value in values if value < 1]
    conditional = np.vectorize(lambda r: law.cdf(r) / law.cdf(1 - 1e-12))
    assert stats.kstest(below, conditional).pvalue > LEVEL / 2


def test_the_test_tells_mar_from_the_untruncated_law() -> None:
    wrong = draws(ClippedNormal(1.0, 0.25, 0.7, 1.0))  # clipped instead of truncated
    assert stats.kstest(wrong, truncnorm(1.0, 0.25, 0.7, 1.0).cdf).pvalue < LEVEL


def test_the_clipped_normal_piles_up_at_its_ends() -> None:
    values = draws(ClippedNormal(0.9, 0.1))
    assert sum(value == 1.0 for value in values) / SAMPLES == pytest.approx(1 - stats.norm.cdf(1), abs=0.03)
    assert max(values) <= 1.0


def test_schedule_c_has_the_stated_mean() -> None:
    mixture = Mixture([ClippedNormal(loc=0.75, scale=0.10), TruncatedNormal(loc=1.0, scale=0.5)], [0.5, 0.5])
    mean = sum(draws(mixture)) / SAMPLES
    assert mean == pytest.approx(0.69, abs=0.01)


def test_fixed() -> None:
    assert set(draws(Fixed(0.7))) == {0.7}


@pytest.mark.parametrize("num_tokens", [1, 5, 64, 256])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.999, 1.0])
def test_counts(num_tokens: int, ratio: float) -> None:
    dropped = num_hidden_when_dropping(ratio, num_tokens)
    assert dropped == min(round(num_tokens * ratio), num_tokens - 1)
    assert num_tokens - dropped >= 1
    assert 1 <= num_hidden_in_mar(ratio, num_tokens) == max(1, math.ceil(num_tokens * ratio)) <= num_tokens


def test_masks_hide_the_count_at_places_that_differ_between_clips() -> None:
    mask = random_mask(64, 20, 13, torch.Generator().manual_seed(0))
    assert (mask.sum(dim=1) == 13).all()
    assert len({tuple(row.tolist()) for row in mask}) > 60
    share = mask.float().mean(dim=0)
    assert (share - 13 / 20).abs().max() < 4 * math.sqrt(13 / 20 * 7 / 20 / 64)  # one in 800 seeds fails
    kept = kept_positions(mask)
    assert (kept.diff(dim=1) > 0).all()
    assert not mask.gather(1, kept).any()


def test_every_order_of_kept_tokens_is_drawn_and_equally_often_within_its_length() -> None:
    """Equation 6: AudioMNTP trains on every increasing sequence of positions, none of a length more than another."""
    num_tokens, generator = 5, torch.Generator().manual_seed(0)
    schedule = Mixture([ClippedNormal(0.75, 0.10), TruncatedNormal(1.0, 0.5)], [0.5, 0.5])
    seen: dict[int, Counter[tuple[int, ...]]] = {length: Counter() for length in range(1, num_tokens + 1)}
    for _ in range(4000):
        num_hidden = num_hidden_when_dropping(schedule.sample(generator), num_tokens)
        kept = kept_positions(random_mask(8, num_tokens, num_hidden, generator), num_hidden)
        seen[num_tokens - num_hidden].update(tuple(row) for row in kept.tolist())
    for length, counts in seen.items():
        assert set(counts) == set(itertools.combinations(range(num_tokens), length))
        assert length == num_tokens or stats.chisquare(list(counts.values())).pvalue > LEVEL


def test_what_hidden_tokens_look_like() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.full((32, 50, 4), 7.0)
    mask = random_mask(32, 50, 20, generator)
    zero = Zero()(tokens, mask, generator)
    assert (zero[mask] == 0).all()
    assert (zero[~mask] == 7).all()
    noisy = Gaussian()(tokens, mask, generator)
    assert (noisy[~mask] == 7).all()
    assert stats.kstest(noisy[mask].flatten().numpy(), stats.norm.cdf).pvalue > LEVEL


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_touches_masked_positions_alone_and_follows_its_generator(name: str) -> None:
    tokens = torch.full((4, 6, 3), 7.0)
    mask = random_mask(4, 6, 2, torch.Generator().manual_seed(0))
    first, again, other = (CORRUPTIONS[name]()(tokens, mask, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first[~mask] == 7).all() and (first[mask] != 7).all()
    assert torch.equal(first, other) == (name == "zero")
    everywhere = CORRUPTIONS[name]()(tokens, None, torch.Generator().manual_seed(1))
    assert (everywhere != 7).all() and torch.equal(everywhere[mask], first[mask])


@pytest.mark.parametrize(("build", "preserving"), [(VPNoise, True), (LinearNoise, False)])
@pytest.mark.parametrize("largest", [1.0, 0.3])
def test_noise_levels_are_uniform_and_mix_as_stated(build: type[VPNoise], preserving: bool, largest: float) -> None:
    """From constant tokens the level of each position can be read off: mean and variance over many values."""
    tokens = torch.full((1, 400, 4000), 3.0)
    noisy = build(largest)(tokens, None, torch.Generator().manual_seed(0))[0]
    mean, variance = noisy.mean(dim=1), noisy.var(dim=1)
    level = variance if preserving else variance.sqrt()
    if preserving:
        assert (mean.square() - 9 * (1 - level)).abs().max() < 1.2  # six standard errors of the variance
    else:
        assert (mean - 3 * (1 - level)).abs().max() < 0.3
    assert stats.kstest((level / largest).numpy(), stats.uniform.cdf).pvalue > LEVEL
    unit = torch.randn(1, 400, 4000, generator=torch.Generator().manual_seed(1))
    spread = build(largest)(unit, None, torch.Generator().manual_seed(2)).var()
    # E (1 - k)^2 + k^2 for k uniform on [0, m] is 1 - m + 2 m^2 / 3.
    assert float(spread) == pytest.approx(1.0 if preserving else 1 - largest + 2 * largest**2 / 3, abs=0.02)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: VPNoise(0.0), "max_level is 0.0, expected a number above 0 and at most 1"),
        (lambda: Fixed(1.2), "got 1.2"),
        (lambda: Uniform(0.6, 0.4), "low 0.6 must lie below high 0.4"),
        (lambda: ClippedNormal(0.5, 0.0), "scale must be positive"),
        (lambda: Mixture([Fixed(0.5)], [0.5, 0.5]), "one weight"),
    ],
)
def test_senseless_laws_are_refused(build: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build()  # type: ignore[operator]  # a constructor

"""Distributions of the mask ratio (schedules A to D, fixed, uniform, MAR's).

The ratio r is drawn once per optimiser step; the positions are drawn for each clip (paper section 3.2, Figure 5).
B clips, N tokens of a clip.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch


class MaskRatio(ABC):
    """Distribution of the mask ratio r on [0, 1]."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> float:
        """Draw one ratio from a CPU generator."""

    @abstractmethod
    def cdf(self, r: float) -> float:
        """P(ratio <= r), for any real r."""

    @property
    def atoms(self) -> dict[float, float]:
        """The ratios that have a probability of their own, where `cdf` jumps, and that probability."""
        return {}


class Fixed(MaskRatio):
    """Always the same ratio (Table 3, row C: 0.7)."""

    def __init__(self, value: float) -> None:
        self.value = _within_unit("value", value)

    def sample(self, generator: torch.Generator) -> float:
        """The value."""
        return self.value

    def cdf(self, r: float) -> float:
        """A step at the value."""
        return float(r >= self.value)

    @property
    def atoms(self) -> dict[float, float]:
        """The value."""
        return {self.value: 1.0}


class Uniform(MaskRatio):
    """Uniform on [low, high] (Table 3, row D)."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = _interval(low, high)

    def sample(self, generator: torch.Generator) -> float:
        """Draw one ratio."""
        return self.low + (self.high - self.low) * _uniform(generator)

    def cdf(self, r: float) -> float:
        """A ramp."""
        if r < self.low:
            return 0.0
        return 1.0 if r >= self.high else (r - self.low) / (self.high - self.low)


class ClippedNormal(MaskRatio):
    """Normal; draws outside of [low, high] are moved to the nearer end (schedule A)."""

    def __init__(self, loc: float, scale: float, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = _interval(low, high)
        self.loc, self.scale = loc, _positive("scale", scale)

    def sample(self, generator: torch.Generator) -> float:
        """Draw one ratio."""
        draw = self.loc + self.scale * float(torch.randn((), generator=generator, dtype=torch.float64))
        return min(max(draw, self.low), self.high)

    def cdf(self, r: float) -> float:
        """The normal's between the ends, with a jump at each of them."""
        if r < self.low:
            return 0.0
        return 1.0 if r >= self.high else _normal_cdf(r, self.loc, self.scale)

    @property
    def atoms(self) -> dict[float, float]:
        """Both ends, with the normal's mass beyond them."""
        below, above = _normal_cdf(self.low, self.loc, self.scale), _normal_cdf(-self.high, -self.loc, self.scale)
        return {self.low: below, self.high: above}


class TruncatedNormal(MaskRatio):
    """Normal restricted to [low, high] (schedules B and D; MAR's has its mode at the upper end)."""

    def __init__(self, loc: float, scale: float, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = _interval(low, high)
        self.loc, self.scale = loc, _positive("scale", scale)

    def sample(self, generator: torch.Generator) -> float:
        """Draw one ratio, by the inverse of the distribution function."""
        law = torch.distributions.Normal(
            torch.tensor(self.loc, dtype=torch.float64), torch.tensor(self.scale, dtype=torch.float64)
        )
        ends = law.cdf(torch.tensor([self.low, self.high], dtype=torch.float64))
        draw = law.icdf(ends[0] + (ends[1] - ends[0]) * _uniform(generator))
        return min(max(float(draw), self.low), self.high)

    def cdf(self, r: float) -> float:
        """The normal's share of the mass between the ends."""
        if r < self.low:
            return 0.0
        low, at, high = (_normal_cdf(x, self.loc, self.scale) for x in (self.low, r, self.high))
        return 1.0 if r >= self.high else (at - low) / (high - low)


class Mixture(MaskRatio):
    """One of several distributions, chosen by weight (schedule C: A and B at equal weights)."""

    def __init__(self, components: Sequence[MaskRatio], weights: Sequence[float]) -> None:
        if len(components) != len(weights) or not components or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"mixture: expected one weight >= 0 for each of {len(components)} components, got {list(weights)}"
            )
        self.components, self.weights = list(components), list(weights)

    def sample(self, generator: torch.Generator) -> float:
        """Choose a component, then draw from it."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return self.components[int(torch.multinomial(weights, 1, generator=generator))].sample(generator)

    def cdf(self, r: float) -> float:
        """The weighted mean of the components'."""
        return sum(weight * law.cdf(r) for law, weight in self._weighted())

    @property
    def atoms(self) -> dict[float, float]:
        """Those of the components, weighted."""
        atoms: dict[float, float] = {}
        for law, weight in self._weighted():
            for ratio, mass in law.atoms.items():
                atoms[ratio] = atoms.get(ratio, 0.0) + weight * mass
        return atoms

    def _weighted(self) -> list[tuple[MaskRatio, float]]:
        total = sum(self.weights)
        return [(law, weight / total) for law, weight in zip(self.components, self.weights, strict=True)]


MASK_RATIOS: dict[str, type[MaskRatio]] = {
    cls.__name__: cls for cls in (Fixed, Uniform, ClippedNormal, TruncatedNormal, Mixture)
}


def _normal_cdf(x: float, loc: float, scale: float) -> float:
    return 0.5 * math.erfc((loc - x) / (scale * math.sqrt(2)))


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _within_unit(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"mask ratio: {name} must lie in [0, 1], got {value}")
    return value


def _interval(low: float, high: float) -> tuple[float, float]:
    if _within_unit("low", low) >= _within_unit("high", high):
        raise ValueError(f"mask ratio: low {low} must lie below high {high}; for a single ratio take Fixed")
    return low, high


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise ValueError(f"mask ratio: {name} must be positive, got {value}")
    return value

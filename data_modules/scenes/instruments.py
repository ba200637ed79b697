"""The kinds of sound source, and how one stroke of each is synthesised.

A stroke is one unbroken sound: a click, a bell's strike, a whole siren. Renderers return float64 [samples] at
16 kHz, of any level: levels are set where sources are mixed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
Waveform = NDArray[np.float64]

# Ranges of the fundamental in Hz. Sirens sweep half an octave to each side, so that even they stay a third of an
# octave apart.
PITCHES: dict[str, tuple[float, float]] = {"low": (130, 200), "mid": (500, 700), "high": (2000, 3000)}
# Chirps cross all of it, from somewhere in the first range to somewhere in the second, or back.
_CHIRP_ENDS = ((150, 300), (2000, 3500))
_HIGHEST_PARTIAL = 7000.0


@dataclass(frozen=True)
class Stroke:
    """What a renderer needs to know.

    Attributes:
        samples: the length.
        frequency: the fundamental in Hz; 0 for kinds without pitch.
        direction: `rises`, `falls` or None.
    """

    samples: int
    frequency: float
    direction: str | None


Renderer = Callable[[np.random.Generator, Stroke], Waveform]


@dataclass(frozen=True)
class Kind:
    """What a kind of source can do.

    Attributes:
        render: synthesises one stroke.
        pitches: the pitch classes that it comes in; empty without pitch.
        directions: of its pitch; None among them if it may also stay.
        seconds: shortest and longest stroke; the longest is cut where time is short.
        repeats: whether it comes as counted strokes.
        bed: whether it can lie under a whole clip.
    """

    render: Renderer
    pitches: tuple[str, ...] = ()
    directions: tuple[str | None, ...] = (None,)
    seconds: tuple[float, float] = (0.1, float("inf"))
    repeats: bool = False
    bed: bool = False


def fade(waveform: Waveform, seconds: float = 0.01) -> Waveform:
    """Fade both ends in and out (raised cosine), over at most half of the waveform each."""
    length = min(round(seconds * SAMPLE_RATE), len(waveform) // 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(length, 1))
    faded = waveform.copy()
    faded[:length] *= ramp
    faded[len(waveform) - length :] *= ramp[::-1]
    return faded


def _seconds(samples: int) -> Waveform:
    return np.arange(samples) / SAMPLE_RATE


def _phase(frequency: Waveform) -> Waveform:
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def _harmonics(phase: Waveform, amplitudes: list[float] | list[Waveform]) -> Waveform:
    """Sum a_k sin(k phase) for k = 1 .. K, by sin(k p) = 2 cos(p) sin((k - 1) p) - sin((k - 2) p)."""
    twice_cosine, before, current = 2 * np.cos(phase), np.zeros_like(phase), np.sin(phase)
    total = np.zeros_like(phase)
    for amplitude in amplitudes:
        total += amplitude * current
        before, current = current, twice_cosine * current - before
    return total


def _num_harmonics(highest_frequency: float, at_most: int) -> int:
    return max(1, min(at_most, int(_HIGHEST_PARTIAL / highest_frequency)))


def _tone(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    phase = 2 * np.pi * stroke.frequency * _seconds(stroke.samples)
    return fade(_harmonics(phase, [1.0, 0.15]))


def _chirp(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    bottom, top = (rng.uniform(*ends) for ends in _CHIRP_ENDS)
    course = bottom * (top / bottom) ** np.linspace(0, 1, stroke.samples)
    return fade(_harmonics(_phase(course if stroke.direction == "rises" else course[::-1]), [1.0, 0.2]))


def _siren(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    """Harmonics whose pitch wobbles: fast and little on the way up or down by an octave, else slow and wide."""
    octaves = {"rises": 1.0, "falls": -1.0, None: 0.0}[stroke.direction]
    depth, rate = (0.06, rng.uniform(4.5, 6.5)) if octaves else (0.25, rng.uniform(2.0, 3.0))
    trend = np.log(2) * octaves * np.linspace(-0.5, 0.5, stroke.samples)
    course = stroke.frequency * np.exp(trend + depth * np.sin(2 * np.pi * rate * _seconds(stroke.samples)))
    count = _num_harmonics(float(course.max()), 4)
    return fade(_harmonics(_phase(course), [1 / k for k in range(1, count + 1)]), 0.03)


def _buzz(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    """A sawtooth with the harmonics that fit."""
    count = _num_harmonics(stroke.frequency, 14)
    phase = 2 * np.pi * stroke.frequency * _seconds(stroke.samples)
    return fade(_harmonics(phase, [1 / k for k in range(1, count + 1)]), 0.02)


def _burst(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    return fade(rng.standard_normal(stroke.samples), 0.003)


def _click(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    return rng.standard_normal(stroke.samples) * np.exp(-_seconds(stroke.samples) / 0.003)


def _pluck(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    """A string: harmonics, the higher the sooner gone."""
    time = _seconds(stroke.samples)
    count = _num_harmonics(stroke.frequency, 10)
    slowest, step = np.exp(-time / 0.12), np.exp(-4.0 * time)
    decays = [slowest]
    for _ in range(count - 1):
        decays.append(decays[-1] * step)
    amplitudes = [decay / k for k, decay in enumerate(decays, start=1)]
    return fade(_harmonics(2 * np.pi * stroke.frequency * time, amplitudes), 0.002)


def _bell(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    """The partials of a free bar, which are no harmonics."""
    time = _seconds(stroke.samples)
    ring = np.zeros(stroke.samples)
    for ratio, amplitude, decay in ((1.0, 1.0, 0.25), (2.756, 0.5, 0.14), (5.404, 0.3, 0.08)):
        if stroke.frequency * ratio < _HIGHEST_PARTIAL:
            ring += amplitude * np.exp(-time / decay) * np.sin(2 * np.pi * stroke.frequency * ratio * time)
    return fade(ring, 0.002)


def _coloured(noise: Waveform, gain: Callable[[Waveform], Waveform]) -> Waveform:
    """Filter noise of even length by a gain over frequency in Hz; the ends wrap around."""
    frequency = np.linspace(0, SAMPLE_RATE / 2, len(noise) // 2 + 1)
    return np.fft.irfft(np.fft.rfft(noise) * gain(frequency), n=len(noise))


def _smooth_length(samples: int) -> int:
    """At least `samples`, and quick to transform."""
    return -(-samples // 1024) * 1024


def _rain(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    """High-passed noise with a patter of small drops."""
    noise = rng.standard_normal(_smooth_length(stroke.samples))
    drops = rng.integers(0, len(noise), size=round(len(noise) / SAMPLE_RATE * 200))
    noise[drops] += 4.0 * rng.standard_normal(len(drops))
    cutoff = rng.uniform(1500, 2500)
    rain = _coloured(noise, lambda f: (f / cutoff) ** 2 / (1 + (f / cutoff) ** 2))
    return fade(rain[: stroke.samples], 0.03)


def _wind(rng: np.random.Generator, stroke: Stroke) -> Waveform:
    """Low-passed noise in gusts."""
    noise = rng.standard_normal(_smooth_length(stroke.samples))
    cutoff = rng.uniform(250, 400)
    wind = _coloured(noise, lambda f: (f / cutoff) / (1 + (f / cutoff) ** 4))[: stroke.samples]
    num_gusts = 2 + round(2 * stroke.samples / SAMPLE_RATE)
    gusts = np.interp(np.linspace(0, 1, stroke.samples), np.linspace(0, 1, num_gusts), rng.uniform(0.3, 1, num_gusts))
    return fade(wind * gusts, 0.03)


_ANY_PITCH = tuple(PITCHES)

KINDS: dict[str, Kind] = {
    "tone": Kind(_tone, pitches=_ANY_PITCH, repeats=True, seconds=(0.08, float("inf"))),
    "chirp": Kind(_chirp, directions=("rises", "falls"), seconds=(0.3, 1.5)),
    "siren": Kind(_siren, pitches=_ANY_PITCH, directions=("rises", "falls", None), seconds=(0.7, float("inf"))),
    "buzz": Kind(_buzz, pitches=("low", "mid"), seconds=(0.12, float("inf")), bed=True),
    "burst": Kind(_burst, repeats=True, seconds=(0.06, 0.18)),
    "click": Kind(_click, repeats=True, seconds=(0.02, 0.02)),
    "pluck": Kind(_pluck, pitches=_ANY_PITCH, repeats=True, seconds=(0.09, 0.6)),
    "bell": Kind(_bell, pitches=_ANY_PITCH, repeats=True, seconds=(0.14, 1.2)),
    "rain": Kind(_rain, seconds=(0.4, float("inf")), bed=True),
    "wind": Kind(_wind, seconds=(0.7, float("inf")), bed=True),
}
CLASSES: tuple[str, ...] = tuple(KINDS)

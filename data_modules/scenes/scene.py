"""One scene: a plan, made audible and put into words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_modules.scenes.grammar import draw_caption
from data_modules.scenes.instruments import KINDS, PITCHES, SAMPLE_RATE, Stroke, Waveform, fade
from data_modules.scenes.layout import Placed, Plan, draw_plan

SPLITS = ("train", "val", "test")
_SLICE = 2560

# Levels in dB beside the loudest source; of a bed without a word, and how much they vary to each side.
_QUIET = -15.0
_PLAIN_BED = -8.0
_JITTER = 1.0
# White noise under everything, in dB below full scale: no real recording is digitally silent.
_FLOOR = (-66.0, -58.0)
_PEAK = 0.5
_LEVEL_WINDOW = 256


@dataclass(frozen=True)
class Scene:
    """A captioned clip.

    Attributes:
        caption: at most 16 words, true.
        classes: the kinds of its sources, without repeats, in order of time; a bed comes last.
        waveform: [samples] float32 at 16 kHz, peak 0.5.
    """

    caption: str
    classes: tuple[str, ...]
    waveform: NDArray[np.float32]


def synthesise(seed: int, split: str, index: int, seconds: float = 2.56) -> Scene:
    """Synthesise one scene; a pure function of its arguments.

    Args:
        seed: of the corpus, at least 0.
        split: `train`, `val` or `test`: independent streams of random numbers.
        index: of the clip within its split, at least 0.
        seconds: a multiple of 0.16.

    Raises:
        ValueError: an argument is out of range.
    """
    samples = num_samples(seconds)
    rng = random_stream(seed, split, index)
    plan = draw_plan(rng, samples)
    caption = draw_caption(rng, plan)
    placed = [*plan.foreground, *([plan.bed] if plan.bed else [])]
    classes = tuple(dict.fromkeys(item.source.kind for item in placed))
    return Scene(caption, classes, _render_plan(rng, plan, samples))


def random_stream(seed: int, split: str, index: int) -> np.random.Generator:
    """The random numbers of one scene, independent of every other scene's.

    Raises:
        ValueError: an argument is out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of the embedded corpus; known: {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise ValueError(f"the embedded corpus got seed {seed} and index {index}; expected both at least 0")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index)))


def num_samples(seconds: float) -> int:
    """Samples of a clip of `seconds`.

    Raises:
        ValueError: not a positive multiple of 0.16 s, the length of a time slice of tokens.
    """
    slices = round(seconds * SAMPLE_RATE / _SLICE)
    if slices < 1 or abs(slices * _SLICE - seconds * SAMPLE_RATE) > 1e-3:
        raise ValueError(f"a clip of {seconds} seconds; expected a positive multiple of {_SLICE / SAMPLE_RATE}")
    return slices * _SLICE


def _render_plan(rng: np.random.Generator, plan: Plan, samples: int) -> NDArray[np.float32]:
    mixture = np.zeros(samples)
    for placed in plan.foreground:
        level = _QUIET + 3.0 if plan.bed and placed.source.loudness == "quiet" else None
        mixture += _at_level(rng, placed, samples, level)
    if plan.bed:
        level = {"loud": 0.0, "quiet": _QUIET, None: _PLAIN_BED}[plan.bed.source.loudness]
        mixture += _at_level(rng, plan.bed, samples, level)
    mixture *= _PEAK / np.abs(mixture).max()
    mixture += 10 ** (rng.uniform(*_FLOOR) / 20) * rng.standard_normal(samples)
    return (mixture * (_PEAK / np.abs(mixture).max())).astype(np.float32)


def _at_level(rng: np.random.Generator, placed: Placed, samples: int, decibels: float | None) -> Waveform:
    """Render a source [samples] at a level in dB; None takes the level from its loudness alone."""
    if decibels is None:
        decibels = _QUIET if placed.source.loudness == "quiet" else 0.0
    waveform = _render_source(rng, placed, samples)
    gain = 10 ** ((decibels + rng.uniform(-_JITTER, _JITTER)) / 20)
    return waveform * (gain / loudest(waveform))


def _render_source(rng: np.random.Generator, placed: Placed, samples: int) -> Waveform:
    """Put the strokes of a source into a clip; a stroke ends at the next one, as a string that is plucked again."""
    source = placed.source
    frequency = float(rng.uniform(*PITCHES[source.pitch])) if source.pitch else 0.0
    stroke = KINDS[source.kind].render(rng, Stroke(placed.samples, frequency, source.direction))
    clip = np.zeros(samples)
    for onset, end in zip(placed.onsets, (*placed.onsets[1:], samples), strict=True):
        length = min(placed.samples, end - onset)
        clip[onset : onset + length] = stroke if length == placed.samples else fade(stroke[:length], 0.002)
    return clip


def loudest(waveform: Waveform) -> float:
    """Root mean square of the loudest 16 ms of a waveform [samples]: the level that loud and quiet speak of."""
    energy = np.concatenate([[0.0], np.cumsum(waveform**2)])
    return float(np.sqrt((energy[_LEVEL_WINDOW:] - energy[:-_LEVEL_WINDOW]).max() / _LEVEL_WINDOW))

"""What sounds when: draws the sources of a scene, their attributes and their places in time."""

from dataclasses import dataclass, replace

import numpy as np

from data_modules.scenes.instruments import KINDS, PITCHES, SAMPLE_RATE

# Seconds between the onsets of counted strokes. The ranges are far enough apart to be told by ear.
INTERVALS: dict[str | None, tuple[float, float]] = {"quick": (0.10, 0.14), None: (0.24, 0.34), "slow": (0.5, 0.7)}
# Seconds of sustained sources that are called short or long.
LENGTHS: dict[str, tuple[float, float]] = {"short": (0.12, 0.25), "long": (1.0, float("inf"))}
_MAX_COUNT = 4
_LOW_BEDS = ("buzz", "wind")
_GAP = 0.08
_LEAD = 0.02

# (sources in the foreground, is there a bed), how often, and the seconds that it takes.
_LAYOUTS: tuple[tuple[int, bool, float, float], ...] = (
    (1, False, 0.2, 0.0),
    (2, False, 0.3, 1.28),
    (3, False, 0.1, 2.08),
    (1, True, 0.25, 0.8),
    (2, True, 0.15, 1.6),
)


@dataclass(frozen=True)
class Source:
    """One source, as far as a caption may speak of it.

    Attributes:
        kind: a key of `KINDS`.
        pitch: a key of `PITCHES`, or None.
        direction: `rises` or `falls`, or None.
        count: strokes.
        rhythm: `quick` or `slow`, or None for neither.
        length: `short` or `long`, or None for unsaid.
        loudness: `loud` or `quiet` beside the others of the scene, or None for about equal.
    """

    kind: str
    pitch: str | None = None
    direction: str | None = None
    count: int = 1
    rhythm: str | None = None
    length: str | None = None
    loudness: str | None = None


@dataclass(frozen=True)
class Placed:
    """A source in time.

    Attributes:
        source: what it is.
        onsets: of its strokes, in samples from the clip's start.
        samples: of its last stroke; the ones before end where the next begins, if not sooner.
    """

    source: Source
    onsets: tuple[int, ...]
    samples: int


@dataclass(frozen=True)
class Plan:
    """A scene before it is heard: sources one after the other, over a bed or over nothing."""

    foreground: tuple[Placed, ...]
    bed: Placed | None


def draw_plan(rng: np.random.Generator, samples: int) -> Plan:
    """Draw a scene that fits into `samples` samples (at least 2560)."""
    seconds = samples / SAMPLE_RATE
    layouts = [layout for layout in _LAYOUTS if layout[3] <= seconds]
    odds = np.array([layout[2] for layout in layouts])
    num_sources, has_bed, _, _ = layouts[rng.choice(len(layouts), p=odds / odds.sum())]
    bed = _draw_bed(rng, seconds) if has_bed else None
    slots = _draw_slots(rng, seconds, num_sources)
    foreground: list[Source] = []
    places = []
    for start, length in slots:
        placed = _draw_place(rng, _draw_source(rng, length, foreground, bed), start, length)
        foreground.append(placed.source)
        places.append(placed)
    loudness = _draw_loudness(rng, foreground, bed)
    louder = [replace(placed, source=replace(placed.source, loudness=loudness[i])) for i, placed in enumerate(places)]
    under = None if bed is None else Placed(replace(bed, loudness=loudness[-1]), (0,), samples)
    return Plan(tuple(louder), under)


def _draw_bed(rng: np.random.Generator, seconds: float) -> Source:
    kinds = [name for name, kind in KINDS.items() if kind.bed and kind.seconds[0] <= seconds]
    kind = str(rng.choice(kinds))
    return Source(kind, pitch="low" if KINDS[kind].pitches else None)


def _draw_slots(rng: np.random.Generator, seconds: float, count: int) -> list[tuple[float, float]]:
    """Split a clip into (start, length) in seconds, one after the other, with a gap after each."""
    weights = rng.uniform(0.85, 1.15, count)
    ends = np.cumsum(weights) / weights.sum() * seconds
    starts = np.concatenate([[0.0], ends[:-1]])
    return [
        (float(start), float(end - start - min(_GAP, 0.1 * (end - start))))
        for start, end in zip(starts, ends, strict=True)
    ]


def _draw_source(rng: np.random.Generator, seconds: float, before: list[Source], bed: Source | None) -> Source:
    """Draw a source that fits into `seconds` and is told apart from the ones before it and from the bed."""
    fitting = [name for name, kind in KINDS.items() if kind.seconds[0] + _LEAD <= seconds]
    if bed is None and len(before) == 1 and before[0].pitch and before[0].kind in fitting and rng.random() < 0.15:
        pitches = [pitch for pitch in KINDS[before[0].kind].pitches if pitch != before[0].pitch]
        return _draw_attributes(rng, before[0].kind, seconds, pitches)
    taken = {source.kind for source in before} | ({bed.kind} if bed else set())
    kinds = [name for name in fitting if name not in taken and not (bed and KINDS[name].bed)]
    kind = str(rng.choice(kinds))
    # Nothing is low over a low buzz or over wind: it would be hidden.
    hidden = "low" if bed and bed.kind in _LOW_BEDS else None
    return _draw_attributes(rng, kind, seconds, [pitch for pitch in KINDS[kind].pitches if pitch != hidden])


def _draw_attributes(rng: np.random.Generator, name: str, seconds: float, pitches: list[str]) -> Source:
    kind = KINDS[name]
    directions = kind.directions
    source = Source(
        name,
        pitch=str(rng.choice(pitches)) if pitches else None,
        direction=directions[rng.integers(len(directions))],
    )
    if kind.repeats:
        count, rhythm = _draw_rhythm(rng, name, seconds)
        source = replace(source, count=count, rhythm=rhythm)
    if source.count == 1 and name in ("tone", "buzz"):
        lengths = [None, None, "short", *(["long"] if seconds >= LENGTHS["long"][0] + _LEAD else [])]
        source = replace(source, length=lengths[rng.integers(len(lengths))])
    return source


def _draw_rhythm(rng: np.random.Generator, name: str, seconds: float) -> tuple[int, str | None]:
    """Draw a count and a rhythm whose slowest interval leaves room for the last stroke."""
    shortest = KINDS[name].seconds[0]
    options: list[tuple[int, str | None]] = []
    for rhythm, (_, widest) in INTERVALS.items():
        # A bell rings on: its strokes can't be counted when they come too soon.
        if name == "bell" and rhythm == "quick":
            continue
        for count in range(3 if rhythm else 2, _MAX_COUNT + 1):
            if (count - 1) * widest + shortest + _LEAD <= seconds:
                options.append((count, rhythm))
    if not options or rng.random() < 0.3:
        return 1, None
    return options[rng.integers(len(options))]


def _draw_place(rng: np.random.Generator, source: Source, start: float, seconds: float) -> Placed:
    """Draw onsets and length within the slot."""
    interval = rng.uniform(*INTERVALS[source.rhythm]) if source.count > 1 else 0.0
    span = (source.count - 1) * interval
    length = _draw_length(rng, source, interval, seconds - _LEAD - span)
    first = start + _LEAD + rng.uniform(0, 1) * (seconds - _LEAD - span - length)
    onsets = tuple(round((first + i * interval) * SAMPLE_RATE) for i in range(source.count))
    return Placed(source, onsets, round(length * SAMPLE_RATE))


def _draw_length(rng: np.random.Generator, source: Source, interval: float, room: float) -> float:
    """Seconds of the last stroke."""
    shortest, longest = KINDS[source.kind].seconds
    if source.length:
        low, high = LENGTHS[source.length]
        return float(rng.uniform(low if source.length == "short" else max(low, 0.75 * room), min(high, room)))
    if source.count > 1 and source.kind in ("tone", "burst"):
        # Held sounds need a pause before the next one.
        return float(rng.uniform(0.5, 0.7) * min(interval, room))
    longest = min(longest, room)
    return float(rng.uniform(max(shortest, 0.5 * longest), longest))


def _draw_loudness(rng: np.random.Generator, foreground: list[Source], bed: Source | None) -> list[str | None]:
    """Draw loudness words for the foreground's sources and, last, for the bed."""
    plain: list[str | None] = [None] * (len(foreground) + 1)
    if bed is not None:
        if rng.random() < 0.5:
            return plain
        # Under a louder bed only a pitch can be heard, and under one that is itself low, only a high pitch.
        audible = ("high",) if bed.kind in _LOW_BEDS else tuple(PITCHES)
        if len(foreground) == 1 and foreground[0].pitch in audible and rng.random() < 0.5:
            return ["quiet", "loud"]
        return ["loud" if len(foreground) == 1 else None] * len(foreground) + ["quiet"]
    if len(foreground) == 2 and rng.random() < 0.3:
        return ["loud", "quiet", None] if rng.random() < 0.5 else ["quiet", "loud", None]
    return plain

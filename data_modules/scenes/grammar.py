"""The grammar: what a plan says in words. Wordings vary, the meaning never does."""

from typing import TypeVar

import numpy as np

from data_modules.scenes.layout import Plan, Source

MAX_WORDS = 16
T = TypeVar("T")

_NUMBERS = {2: "two", 3: "three", 4: "four"}
_TIMES = {1: "once", 2: "twice", 3: "three times", 4: "four times"}
_PITCH_WORDS = {
    "low": ("low", "low", "deep", "low-pitched"),
    "mid": ("mid-pitched", "medium-pitched"),
    "high": ("high", "high", "high-pitched"),
}
_RHYTHM_WORDS = {"quick": ("quick", "rapid"), "slow": ("slow",)}
_DIRECTION_WORDS = {"rises": "rising", "falls": "falling"}
# Singular and plural of what is counted; no plural for what only comes alone.
_NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "tone": (("tone", "tones"),),
    "chirp": (("chirp", ""), ("sweep", "")),
    "siren": (("siren", ""),),
    "buzz": (("buzz", ""),),
    "burst": (("noise burst", "noise bursts"), ("burst of noise", "bursts of noise")),
    "click": (("click", "clicks"), ("tick", "ticks")),
    "pluck": (("plucked note", "plucked notes"), ("string pluck", "string plucks")),
    "bell": (("bell strike", "bell strikes"), ("bell note", "bell notes")),
    "rain": (("rain", ""), ("falling rain", "")),
    "wind": (("wind", ""), ("blowing wind", "")),
}
_UNCOUNTABLE = frozenset({"rain", "wind"})
# What a source does, by kind and direction, and its name as the one who does it.
_VERBS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("tone", None): ("sounds", "plays"),
    ("chirp", "rises"): ("rises", "sweeps up"),
    ("chirp", "falls"): ("falls", "sweeps down"),
    ("siren", "rises"): ("rises", "climbs"),
    ("siren", "falls"): ("falls", "sinks"),
    ("siren", None): ("wails",),
    ("buzz", None): ("drones",),
    ("pluck", None): ("is plucked",),
    ("bell", None): ("rings",),
    ("rain", None): ("falls",),
    ("wind", None): ("blows",),
}
_SUBJECTS = {"chirp": "chirp", "pluck": "string", "bell": "bell", "rain": "rain", "wind": "wind"}
# "rings twice", where others say "two strikes".
_COUNTED_BY_VERB = frozenset({"pluck", "bell"})


def draw_caption(rng: np.random.Generator, plan: Plan) -> str:
    """Word a plan in at most 16 words.

    Every attribute but rhythm and length is always said; without these two, any plan fits, so drawing again ends.
    """
    while True:
        caption = _draw_sentence(rng, plan)
        if len(caption.split()) <= MAX_WORDS:
            return caption


def _draw_sentence(rng: np.random.Generator, plan: Plan) -> str:
    sources = [placed.source for placed in plan.foreground]
    if plan.bed is None:
        return _draw_sequence(rng, sources)
    sequence = _draw_sequence(rng, sources, plain=len(sources) > 1)
    comma = "," if len(sources) > 1 else ""
    if rng.random() < 0.4:
        return f"{sequence}{comma} while {_clause(rng, plan.bed.source)}"
    return f"{sequence}{comma} over {_noun_phrase(rng, plan.bed.source)}"


def _draw_sequence(rng: np.random.Generator, sources: list[Source], plain: bool = False) -> str:
    """Sources in their order in time; `plain` keeps to "a, then b", whose order stays clear before a bed."""
    if len(sources) == 2 and not plain and rng.random() < 0.4:
        first, second = (_noun_phrase(rng, source) for source in sources)
        return f"{first} followed by {second}" if rng.random() < 0.6 else f"{second} after {first}"
    parts = [_clause_or_noun_phrase(rng, source) for source in sources]
    if len(parts) == 3 and rng.random() < 0.5:
        return f"{parts[0]}, {parts[1]}, then {parts[2]}"
    return ", then ".join(parts)


def _clause_or_noun_phrase(rng: np.random.Generator, source: Source) -> str:
    has_clause = (source.kind, source.direction) in _VERBS and source.rhythm is None
    if has_clause and (source.count == 1 or source.kind in _COUNTED_BY_VERB) and rng.random() < 0.4:
        return _clause(rng, source)
    return _noun_phrase(rng, source)


def _clause(rng: np.random.Generator, source: Source) -> str:
    """A source and what it does: "a low string is plucked twice"."""
    noun = _SUBJECTS.get(source.kind) or _choose(rng, _NOUNS[source.kind])[0]
    words = [*_article(source), *_adjectives(rng, source), noun, _choose(rng, _VERBS[source.kind, source.direction])]
    if source.kind in _COUNTED_BY_VERB:
        words.append(_TIMES[source.count])
    return " ".join(words)


def _noun_phrase(rng: np.random.Generator, source: Source) -> str:
    """A source by its name: "three quick high bell strikes"."""
    singular, plural = _choose(rng, _NOUNS[source.kind])
    adjectives = _adjectives(rng, source)
    if source.direction:
        adjectives.append(_DIRECTION_WORDS[source.direction])
    if source.count > 1:
        return " ".join([_NUMBERS[source.count], *adjectives, plural])
    return " ".join([*_article(source), *adjectives, singular])


def _article(source: Source) -> list[str]:
    return [] if source.kind in _UNCOUNTABLE else ["a"]


def _adjectives(rng: np.random.Generator, source: Source) -> list[str]:
    words = [source.loudness] if source.loudness else []
    if source.rhythm and rng.random() < 0.8:
        words.append(_choose(rng, _RHYTHM_WORDS[source.rhythm]))
    if source.length and rng.random() < 0.8:
        words.append(source.length)
    if source.pitch:
        words.append(_choose(rng, _PITCH_WORDS[source.pitch]))
    return words


def _choose(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[rng.integers(len(options))]

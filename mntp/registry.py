"""Looking classes up by name in the families' plain dicts, with an answer for misspelt names."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or the empty string."""
    near = difflib.get_close_matches(word.rpartition(".")[-1], sorted(set(known)), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def find_class(name: str, known: Mapping[str, type[T]], family: str) -> type[T]:
    """Find a class by its name.

    Args:
        name: as in YAML, in a store or in a checkpoint.
        known: the family's classes by name.
        family: what the classes are, for the message ("tokenizer").

    Raises:
        ValueError: no such class; the message lists the known ones and the nearest.
    """
    if name in known:
        return known[name]
    raise ValueError(f"unknown {family} class {name!r}; known: {', '.join(sorted(known))}{did_you_mean(name, known)}")


def build(spec: Mapping[str, Any], known: Mapping[str, type[T]], family: str) -> T:
    """Construct `spec["class"]` with `spec["settings"]` as keyword arguments.

    Raises:
        ValueError: an unknown class, or settings that it does not take.
    """
    cls = find_class(str(spec["class"]), known, family)
    try:
        return cls(**spec["settings"])
    except TypeError as error:
        raise ValueError(f"{family} {spec['class']} does not take its settings {spec['settings']}: {error}") from error

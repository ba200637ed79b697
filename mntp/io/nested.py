"""Nested settings as one level of dotted keys."""

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one level of dotted keys, in their order; empty mappings vanish."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted key and both values of all settings that differ, in the first mapping's order; None is absent."""
    left, right = flatten(one), flatten(other)
    for key in dict.fromkeys([*left, *right]):
        if left.get(key) != right.get(key):
            yield key, left.get(key), right.get(key)

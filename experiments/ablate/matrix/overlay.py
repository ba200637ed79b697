"""Overlays: small lists of changes to a config, each at a dotted key."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.ablate.matrix.yaml_document import Entry, not_known
from experiments.config.nodes import SEED_KEYS, look_up

# Sections that a base config may leave out.
OPTIONAL_SECTIONS = ("init",)


@dataclass(frozen=True)
class Setting:
    """One key of an overlay, whose whole node is replaced.

    Attributes:
        key: dotted.
        value: what stands there afterwards.
        where: file and line.
        keep: where the value is a class, the arguments of the replaced class that it takes over.
    """

    key: str
    value: Any
    where: str
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Removal:
    """A dotted key that disappears; `where` is file and line."""

    key: str
    where: str


Overlay = tuple[Setting | Removal, ...]


def read_overlay(fields: Mapping[str, Entry]) -> Overlay:
    """Read the overlay of a node that may say `set` and `remove`, in this order.

    Args:
        fields: the node's entries; others than these two are left alone.

    Raises:
        ValueError: half a class, a seed, or a key both set and removed.
    """
    settings = [_setting(key, child) for key, child in fields["set"].mapping().items()] if "set" in fields else []
    removals = []
    for item in fields["remove"].items() if "remove" in fields else ():
        removals.append(Removal(item.text(), item.where))
        if clash := [setting.key for setting in settings if overlaps(setting.key, item.text())]:
            raise item.error(f"{clash[0]} is set beside it: say what is left")
    return (*settings, *removals)


def _setting(key: str, entry: Entry) -> Setting:
    if key.endswith(".class_path"):
        raise entry.error(
            "a class is replaced with its arguments: give the whole node (class_path and init_args) at "
            f"{key.removesuffix('.class_path')}, or the old class's arguments would stay"
        )
    if key in SEED_KEYS:
        raise entry.error("the seed is not the matrix's: a run is asked for with its seeds")
    value = entry.value()
    if not (isinstance(value, dict) and "class_path" in value and "keep" in value):
        return Setting(key, value, entry.where)
    del value["keep"]
    return Setting(key, value, entry.where, tuple(item.text() for item in entry.mapping()["keep"].items()))


def overlaps(first: str, second: str) -> bool:
    """Return whether one of two dotted keys is the other, or lies inside of it."""
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


def overlaid(config: Mapping[str, Any], overlay: Iterable[Setting | Removal]) -> dict[str, Any]:
    """Return a copy of `config` with the changes of an overlay, one after the other.

    Raises:
        ValueError: a key's first part isn't in `config`, its path leads through something with no keys, or what is
            to be removed or kept isn't there.
    """
    result: dict[str, Any] = copy.deepcopy(dict(config))
    for change in overlay:
        first, *_ = parts = change.key.split(".")
        if first not in result and first not in OPTIONAL_SECTIONS:
            raise ValueError(f"{change.where}: {change.key}: in the base config, {not_known(first, result)}")
        node = result
        for depth, part in enumerate(parts[:-1], start=1):
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError(
                    f"{change.where}: {change.key}: {'.'.join(parts[:depth])} is {node!r} in the base config and has "
                    "no keys; replace it whole"
                )
        if isinstance(change, Setting):
            node[parts[-1]] = _taking_over(change, node.get(parts[-1]))
        elif parts[-1] in node:
            del node[parts[-1]]
        else:
            raise ValueError(f"{change.where}: {change.key}: to be removed, but the base config has no such key")
    return result


def _taking_over(setting: Setting, old: Any) -> Any:
    """The setting's value, with the arguments that it keeps of the old node."""
    value = copy.deepcopy(setting.value)
    if not setting.keep:
        return value
    arguments = (look_up(old, "init_args") if isinstance(old, dict) else None) or {}
    if missing := [name for name in setting.keep if name not in arguments]:
        raise ValueError(
            f"{setting.where}: {setting.key}: keep: the base config gives {', '.join(arguments) or 'no arguments'} "
            f"there, and not {', '.join(missing)}"
        )
    kept = {name: copy.deepcopy(arguments[name]) for name in setting.keep}
    return {**value, "init_args": {**kept, **value.get("init_args", {})}}

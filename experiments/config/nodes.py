"""Nodes of a resolved config: class names, values at dotted keys."""

from collections.abc import Iterator, Mapping
from typing import Any


def class_name(node: Any) -> str:
    """Return the bare class name of a config's `class_path` node, empty for anything else."""
    return str(node["class_path"]).rpartition(".")[2] if isinstance(node, dict) and "class_path" in node else ""


# What a cell's seed sets: initialisation and noise, and the order of clips. Data of another class than
# `LatentDataModule` take their seed among their `init_args`.
SEED_KEYS = ("model.init_args.seed", "data.seed", "data.init_args.seed")


def with_seed(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return a config with another seed, at every key that a cell's seed sets; the rest is shared, not copied."""
    seeded = dict(config)
    own_class = "class_path" in (config.get("data") or {})
    for key in (SEED_KEYS[0], SEED_KEYS[2] if own_class else SEED_KEYS[1]):
        *path, last = key.split(".")
        node = seeded
        for part in path:
            node[part] = node = dict(node.get(part) or {})
        node[last] = seed
    return seeded


def look_up(config: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key, None where there is none."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def class_paths(node: Any) -> Iterator[str]:
    """Yield every `class_path` inside a config, at any depth."""
    if isinstance(node, Mapping):
        if isinstance(path := node.get("class_path"), str):
            yield path
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from class_paths(item)

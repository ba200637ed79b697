"""Nodes of a resolved config: class names, values at dotted keys."""

from collections.abc import Mapping
from typing import Any


def class_name(node: Any) -> str:
    """Return the bare class name of a config's `class_path` node, empty for anything else."""
    return str(node["class_path"]).rpartition(".")[2] if isinstance(node, dict) and "class_path" in node else ""


# What a cell's seed sets: initialisation and noise, and the order of clips.
SEED_KEYS = ("model.init_args.seed", "data.seed")


def look_up(config: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key, None where there is none."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node

"""Arguments of systems under the names that earlier configs, checkpoints and exported models have."""

import copy
from collections.abc import Mapping
from typing import Any

SYSTEM = {"hide": "masking_mode", "ratio": "mask_ratio"}
MIXTURE = {"laws": "components"}
STREAM = {"slots": "max_length"}
DECODING = {"growing": "ramp"}


def with_present_names(init_args: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the arguments of a system that had other names before; the rest stays.

    Args:
        init_args: plain values, as the section `model` of a config has them.
    """
    present = _renamed(copy.deepcopy(dict(init_args)), SYSTEM)
    if isinstance(ratio := present.get("mask_ratio"), dict) and isinstance(inner := ratio.get("init_args"), dict):
        ratio["init_args"] = _renamed(inner, MIXTURE)
    if isinstance(streams := present.get("streams"), dict):
        present["streams"] = {
            name: _renamed(stream, STREAM) if isinstance(stream, dict) else stream for name, stream in streams.items()
        }
    if isinstance(decoding := present.get("decoding"), dict):
        present["decoding"] = _renamed(decoding, DECODING)
    return present


def _renamed(values: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}

"""Arguments of systems under the names that earlier configs, checkpoints and exported models have."""

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mntp.heads import HEADS

SYSTEM = {"hide": "masking_mode", "ratio": "mask_ratio"}
MIXTURE = {"laws": "components"}
STREAM = {"slots": "max_length"}
DECODING = {"growing": "ramp"}
# Settings of every head that stood in `decoding` itself; now those of the head in use stand in `decoding.sampling`.
SAMPLING = {
    "num_diffusion_steps": "num_steps",
    "solver": "solver",
    "temperature": "temperature",
    "x0_limit": "x0_limit",
    "guided_steps": "guided_steps",
}


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
        present["decoding"] = _with_sampling(_renamed(decoding, DECODING), present.get("head"))
    return present


def _with_sampling(decoding: dict[str, Any], head: Any) -> dict[str, Any]:
    """Move the settings of the head into `sampling`; those that it never looked at are left out."""
    found = {SAMPLING[name]: decoding.pop(name) for name in SAMPLING if name in decoding}
    if not found:
        return decoding
    path = str(head.get("class_path")) if isinstance(head, dict) else ""
    if (cls := HEADS.get(path.rpartition(".")[2])) is not None:
        known = {field.name for field in fields(cls.sampling_type)}
        found = {name: value for name, value in found.items() if name in known}
    if found.get("solver", "") is None:  # it meant the first of the head's solvers, the default
        del found["solver"]
    return {**decoding, "sampling": {**found, **decoding.get("sampling", {})}}


def _renamed(values: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}

"""Systems from plain values, and from checkpoints of any of them."""

import copy
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import ArgumentParser

from mntp.registry import find_class
from mntp.systems.audio_mar import AudioMAR
from mntp.systems.audio_mntp import AudioMNTP
from mntp.systems.audio_ntp import AudioNTP
from mntp.systems.base import AudioSystem
from mntp.systems.earlier_names import with_present_names

SYSTEMS: dict[str, type[AudioSystem]] = {cls.__name__: cls for cls in (AudioNTP, AudioMNTP, AudioMAR)}

# What Lightning's CLI adds to the hyper-parameters.
_CLASS, _INSTANTIATOR = "_class_path", "_instantiator"


def build_system(class_path: str, init_args: Mapping[str, Any]) -> AudioSystem:
    """Construct a system from plain values, as the section `model` of a config has them.

    Raises:
        ValueError: an unknown class, a class of a module that isn't imported, or arguments that don't fit.
    """
    cls = find_class(class_path.removeprefix("mntp.systems."), SYSTEMS, "system", AudioSystem)
    init_args = with_present_names(init_args)
    for name in _class_paths(init_args):
        module = name.rpartition(".")[0]
        if module not in sys.modules:  # a file that says what is to be imported could say anything
            raise ValueError(f"{class_path} needs the class {name!r}, which is not imported; import {module!r} first")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(cls, "system", required=True)
    try:
        # A copy, because it puts what it builds into the nested values.
        parsed = parser.parse_object(
            {"system": {"class_path": class_path, "init_args": copy.deepcopy(dict(init_args))}}
        )
        system: AudioSystem = parser.instantiate(parsed).system
    except (ArgumentError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        found = re.search(
            r"Errors: - (?:Problem with given class_path '[^']*': )?(.+?) - Expected a <class 'NoneType'>", reason
        )
        reason = (found[1] if found else reason)[:300]  # without what jsonargparse wraps around it
        raise ValueError(f"{class_path} can't be built from its arguments: {reason}") from error
    _keep_plain(system, {**init_args, _CLASS: class_path, _INSTANTIATOR: "lightning.pytorch.cli.instantiate_module"})
    return system


def plain_arguments(system: AudioSystem) -> tuple[str, dict[str, Any]]:
    """The class path and arguments that `build_system` makes a system's equal of.

    Raises:
        ValueError: the system was built in Python, from objects.
    """
    arguments = {name: value for name, value in system.hparams.items() if name not in (_CLASS, _INSTANTIATOR)}
    objects = sorted(name for name, value in arguments.items() if not _is_plain(value))
    if _CLASS not in system.hparams or objects:
        raise ValueError(
            f"this {type(system).__name__} was built in Python: of its arguments {', '.join(objects) or 'none'} are "
            "objects, which JSON can't hold; build it with mntp.systems.build_system, or from a config or a checkpoint"
        )
    return system.hparams[_CLASS], arguments


def _keep_plain(system: AudioSystem, arguments: Mapping[str, Any]) -> None:
    """Put the plain values back in the place of what was built from them: its checkpoint stays one that rebuilds it."""
    system.hparams.clear()
    system.hparams.update(arguments)


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _class_paths(item)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float)

"""Systems from plain values, and from checkpoints of any of them."""

import copy
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from jsonargparse import ArgumentParser

from mntp.heads import HEADS, Head
from mntp.registry import find_class, import_class
from mntp.systems.audio_mar import AudioMAR
from mntp.systems.audio_mntp import AudioMNTP
from mntp.systems.audio_ntp import AudioNTP
from mntp.systems.base import AudioSystem
from mntp.systems.earlier_names import with_present_names

SYSTEMS: dict[str, type[AudioSystem]] = {cls.__name__: cls for cls in (AudioNTP, AudioMNTP, AudioMAR)}

# What Lightning's CLI adds to the hyper-parameters.
CLASS_KEY, INSTANTIATOR_KEY = "_class_path", "_instantiator"


def build_system(class_path: str, init_args: Mapping[str, Any]) -> AudioSystem:
    """Construct a system from plain values, as the section `model` of a config has them.

    Classes may be of the user's own package, which must be imported or allowed (see `mntp.registry`): what stands in a
    checkpoint never decides that code is run.

    Raises:
        ValueError: an unknown class, a class of a package that is not allowed, or arguments that don't fit.
    """
    cls = find_class(_plain_name(class_path, "mntp.systems."), SYSTEMS, "system", AudioSystem)
    init_args = with_present_names(init_args)
    for path in _class_paths(init_args):
        if "." in path:
            import_class(path, object, "class")
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
    _keep_plain(
        system, {**init_args, CLASS_KEY: class_path, INSTANTIATOR_KEY: "lightning.pytorch.cli.instantiate_module"}
    )
    return system


def with_sampling_defaults(init_args: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the settings of a system's head that `decoding.sampling` doesn't name.

    Only the head knows which settings it has, so that a parser takes any.

    Args:
        init_args: plain values, as the section `model` of a resolved config has them. Those of other modules than
            systems are returned as they are.

    Raises:
        ValueError: the head has no such setting, or a value is out of range.
    """
    arguments = dict(init_args)
    head, decoding = arguments.get("head"), arguments.get("decoding")
    if not isinstance(head, dict) or not isinstance(decoding, dict) or "sampling" not in decoding:
        return arguments
    cls = find_class(_plain_name(head["class_path"], "mntp.heads."), HEADS, "head", Head)
    sampling = asdict(cls.sampling_type.from_dict(decoding["sampling"], cls.__name__))
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in sampling.items()}
    return {**arguments, "decoding": {**decoding, "sampling": plain}}


def plain_arguments(system: AudioSystem) -> tuple[str, dict[str, Any]]:
    """The class path and arguments that `build_system` makes a system's equal of.

    Raises:
        ValueError: the system was built in Python, from objects.
    """
    arguments = {name: value for name, value in system.hparams.items() if name not in (CLASS_KEY, INSTANTIATOR_KEY)}
    objects = sorted(name for name, value in arguments.items() if not _is_plain(value))
    if CLASS_KEY not in system.hparams or objects:
        raise ValueError(
            f"this {type(system).__name__} was built in Python: of its arguments {', '.join(objects) or 'none'} are "
            "objects, which JSON can't hold; build it with mntp.systems.build_system, or from a config or a checkpoint"
        )
    return system.hparams[CLASS_KEY], arguments


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


def _plain_name(class_path: str, package: str) -> str:
    """The plain name of one of the suite's own classes; another's dotted path."""
    return class_path.rpartition(".")[2] if class_path.startswith(package) else class_path


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float)

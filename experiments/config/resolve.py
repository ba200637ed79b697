"""Configs as plain dictionaries: read, checked, every default filled in, built."""

import contextlib
import copy
import functools
import inspect
import json
from argparse import ArgumentError
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

import callbacks  # noqa: F401  # importing makes the short class names known
from data_modules.latents import LatentDataModule
from experiments.config.errors import summarise_config_error
from mntp.backbones import BACKBONES
from mntp.heads import HEADS
from mntp.initial_weights import INITIAL_WEIGHTS, InitialWeights
from mntp.masking import MASK_RATIOS
from mntp.registry import did_you_mean
from mntp.systems import SYSTEMS, AudioSystem

SECTIONS = ("trainer", "model", "data", "init")


def resolve(config: dict[str, Any], *overlays: dict[str, Any]) -> dict[str, Any]:
    """Check a merged config and fill in every default, without building anything.

    Args:
        config: a whole config.
        overlays: parts of configs laid over it one after the other, as `lightning fit` does with several `--config`:
            a class that stays keeps the arguments that an overlay doesn't name.

    Returns:
        Plain JSON values; classes by their importable path.

    Raises:
        ValueError: an unknown key or class, or a value of another type; one line.
    """
    layers = (config, *overlays)
    for key in {key for layer in layers for key in layer} - set(SECTIONS):  # jsonargparse would drop it silently here
        raise ValueError(f"config: '{key}' is not a key that the top level accepts{did_you_mean(key, SECTIONS)}")
    resolved: dict[str, Any] = {}
    for section in SECTIONS:
        if section == "model" and not overlays and (model := _by_argument(config.get(section))):
            resolved[section] = model
            continue
        parts = [json.dumps({section: layer[section]} if section in layer else {}) for layer in layers]
        resolved |= json.loads(_resolved_section(section, *parts))
    return resolved


def _by_argument(model: Any) -> dict[str, Any] | None:
    """A system resolved argument by argument: cells share most, and a whole system is parsed many times over.

    Args:
        model: the section `model` as given.

    Returns:
        What `_resolved_section` returns. None for anything but a plain node of a known system, and where an argument
        is refused: parsing the whole section words the error.
    """
    if not isinstance(model, dict) or model.keys() != {"class_path", "init_args"}:
        return None
    name, given = str(model["class_path"]).rpartition(".")[2], model["init_args"]
    path = f"mntp.systems.{name}"
    if name not in SYSTEMS or model["class_path"] not in (name, path) or not isinstance(given, dict):
        return None
    arguments = _arguments(name)
    if not given.keys() <= set(arguments):
        return None
    layers = [json.dumps({key: given[key]} if key in given else {}) for key in arguments]
    init_args: dict[str, Any] = {}
    try:
        for argument, layer in zip(arguments, layers, strict=True):
            init_args |= json.loads(_resolved_argument(name, argument, layer))
    except ArgumentError:
        return None
    return {"class_path": path, "init_args": init_args}


@functools.cache
def _arguments(system: str) -> tuple[str, ...]:
    return tuple(LightningArgumentParser(exit_on_error=False).add_class_arguments(SYSTEMS[system]))


@functools.cache
def _resolved_argument(system: str, argument: str, layer: str) -> str:
    """One argument of a system, or its default where the layer, as JSON, is empty."""
    parser = _argument_parser(system, argument)
    resolved = parser.parse_object(json.loads(layer))
    text: str = parser.dump(resolved, format="json", skip_unset=False, skip_validation=True)
    return text


@functools.cache
def _argument_parser(system: str, argument: str) -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SYSTEMS[system], skip=set(_arguments(system)) - {argument}, sub_configs=True)
    return parser


@functools.cache
def _resolved_section(section: str, *layers: str) -> str:
    """A section of layers, all as JSON; one takes 10 to 40 ms."""
    parser = _section_parser(section)
    resolved = None
    with one_line_errors():
        for layer in layers:
            resolved = parser.parse_object(json.loads(layer), namespace=resolved)
    text: str = parser.dump(resolved, format="json", skip_unset=False, skip_validation=True)
    return text


@functools.cache
def _section_parser(section: str) -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    if section == "trainer":
        parser.add_lightning_class_args(Trainer, section)
    elif section == "model":
        parser.add_lightning_class_args(AudioSystem, section, subclass_mode=True)
    elif section == "data":
        parser.add_lightning_class_args(LatentDataModule, section)
    else:
        add_init(parser)
    return parser


def build_model(resolved: dict[str, Any]) -> AudioSystem:
    """Build the system of a resolved config, with its own random initialisation.

    Raises:
        ValueError: an argument that fits its type, but that the part it is for refuses.
    """
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(AudioSystem, "model", subclass_mode=True)
    with one_line_errors():
        config = parser.parse_object({"model": copy.deepcopy(resolved["model"])})
    with constructor_errors():
        model: AudioSystem = parser.instantiate(config).model
    return model


def add_init(parser: LightningArgumentParser) -> None:
    """Add the section `init` to a parser."""
    parser.add_argument("--init", type=InitialWeights | None, default=None, help="initial weights; null: random")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what jsonargparse says of a config into a ValueError of one line."""
    try:
        yield
    except ArgumentError as error:
        families = (SYSTEMS, BACKBONES, HEADS, MASK_RATIOS, INITIAL_WEIGHTS)
        parts = [part for family in families for part in family.values()]
        lineage = {base for part in (*parts, LatentDataModule, Trainer) for base in part.__mro__}
        keys = {name for base in lineage for name in inspect.signature(vars(base).get("__init__", len)).parameters}
        classes: dict[str, Iterable[str]] = {
            "model": SYSTEMS,
            "backbone": BACKBONES,
            "head": HEADS,
            "mask_ratio": MASK_RATIOS,
            "components": MASK_RATIOS,
            "init": INITIAL_WEIGHTS,
        }
        raise ValueError(summarise_config_error(str(error), keys | set(SECTIONS), classes)) from error


@contextlib.contextmanager
def constructor_errors() -> Iterator[None]:
    """Take away what jsonargparse wraps around a constructor's error: the types it has tried and the whole config."""
    try:
        yield
    except ValueError as error:
        own: BaseException = error
        while str(own).startswith("Does not validate against any of the Union") and own.__cause__ is not None:
            own = own.__cause__
        raise ValueError(str(own)) from own


def load_config(path: Path) -> dict[str, Any]:
    """Read a YAML config as plain values.

    Raises:
        ValueError: it is missing, not YAML, or not a mapping.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a mapping with model, data and trainer, got {type(config).__name__}")
    return config

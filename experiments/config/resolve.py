"""Configs as plain dictionaries: read, checked, every default filled in, built."""

import contextlib
import copy
import functools
import inspect
import json
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

import callbacks  # noqa: F401  # importing makes the short class names known
from data_modules.latents import LatentDataModule
from experiments.config.errors import subclasses, summarise_config_error, unknown_class
from experiments.config.nodes import class_paths
from mntp.backbones import BACKBONES, Backbone
from mntp.heads import HEADS, Head
from mntp.initial_weights import INITIAL_WEIGHTS, InitialWeights
from mntp.masking import MASK_RATIOS, MaskRatio
from mntp.module import SuiteModule
from mntp.registry import allow_imports, did_you_mean, import_class
from mntp.systems import SYSTEMS, with_sampling_defaults

SECTIONS = ("trainer", "model", "data", "init")
# The suite's own classes by the last part of the key that takes them: what an error lists and suggests.
KNOWN_CLASSES: dict[str, Mapping[str, type[Any]]] = {
    "model": SYSTEMS,
    "backbone": BACKBONES,
    "head": HEADS,
    "mask_ratio": MASK_RATIOS,
    "components": MASK_RATIOS,
    "init": INITIAL_WEIGHTS,
}
# What a config is made of, the user's own classes included: their arguments are suggested for misspelt keys.
FAMILIES = (SuiteModule, LightningDataModule, Backbone, Head, MaskRatio, InitialWeights)
_LIBRARIES = ("mntp", "callbacks", "data_modules", "experiments", "lightning", "torch")


def resolve(config: dict[str, Any], *overlays: dict[str, Any]) -> dict[str, Any]:
    """Check a config and fill in every default, without building anything.

    Each argument of a section is parsed by itself and remembered, because the cells of a matrix share most of them.

    Args:
        config: a whole config. Classes may be of the user's own package, by their dotted path.
        overlays: parts of configs laid over it one after the other, as `lightning fit` does with several `--config`:
            a class that stays keeps the arguments that an overlay doesn't name.

    Returns:
        Plain JSON values; classes by their importable path.

    Raises:
        ValueError: an unknown key or class, or a value of another type; one line.
    """
    for key in {key for layer in (config, *overlays) for key in layer} - set(SECTIONS):
        raise ValueError(f"config: '{key}' is not a key that the top level accepts{did_you_mean(key, SECTIONS)}")
    if overlays:
        config = _laid_over(config, *overlays)
    allow_classes(config)
    with one_line_errors():
        init = _dump(_whole_parser("init"), {"init": config.get("init")})
    return {
        "trainer": _with_defaults(Trainer, config.get("trainer") or {}, "trainer"),
        "model": _resolve_class(config.get("model"), "model", SuiteModule),
        "data": _resolve_data(config.get("data") or {}),
        **init,
    }


def allow_classes(config: Mapping[str, Any]) -> None:
    """Import the packages of the classes that a config names, and allow checkpoints to name classes of them.

    For configs that the user wrote: naming a class there is the choice to run its code (`mntp.registry`).

    Raises:
        ValueError: a package can't be imported.
    """
    packages = {path.partition(".")[0] for path in class_paths(config) if "." in path}
    allow_imports(sorted(packages.difference(_LIBRARIES)))


def _resolve_data(data: dict[str, Any]) -> dict[str, Any]:
    """The section `data`: the arguments of `LatentDataModule`, or another class with its own."""
    if "class_path" in data:
        return _resolve_class(data, "data", LightningDataModule)
    return _with_defaults(LatentDataModule, data, "data")


def _resolve_class(node: Any, section: str, base: type[Any]) -> dict[str, Any]:
    """A section that names its class."""
    if not isinstance(node, dict) or "class_path" not in node:
        raise ValueError(f"config: {section}: expected a mapping with class_path and init_args, got {node!r}")
    if unknown := node.keys() - {"class_path", "init_args"}:
        raise ValueError(f"config: '{min(unknown)}' is not a key that {section} accepts beside its class_path")
    known, path = KNOWN_CLASSES.get(section, {}), str(node["class_path"])
    if "." not in path and path not in known:
        raise ValueError(unknown_class(path, section, known))
    cls = known[path] if path in known else import_class(path, base, section)
    place = "mntp.systems" if cls in SYSTEMS.values() else cls.__module__
    init_args = _with_defaults(cls, node.get("init_args") or {}, section)
    return {"class_path": f"{place}.{cls.__name__}", "init_args": with_sampling_defaults(init_args)}


def _with_defaults(cls: Callable[..., Any], given: Mapping[str, Any], section: str) -> dict[str, Any]:
    """All arguments of a class, those that aren't given by their defaults."""
    names = _argument_names(cls)
    for key in given:
        if key not in names:
            raise ValueError(f"config: '{key}' is not a key that {section} accepts{did_you_mean(key, names)}")
    resolved: dict[str, Any] = {}
    with one_line_errors(section):
        for name in names:
            resolved |= json.loads(_argument(cls, name, json.dumps({name: given[name]} if name in given else {})))
    return resolved


@functools.cache
def _argument_names(cls: Callable[..., Any]) -> tuple[str, ...]:
    parser = LightningArgumentParser(exit_on_error=False)
    return tuple(parser.add_class_arguments(cls, fail_untyped=False))


@functools.cache
def _argument(cls: Callable[..., Any], name: str, given: str) -> str:
    """One argument of a class as JSON, by its default where nothing is given; parsing takes milliseconds."""
    return json.dumps(_dump(_argument_parser(cls, name), json.loads(given)))


@functools.cache
def _argument_parser(cls: Callable[..., Any], name: str) -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    others = set(_argument_names(cls)) - {name}
    parser.add_class_arguments(cls, skip=others, fail_untyped=False, sub_configs=True)
    return parser


def _laid_over(*layers: dict[str, Any]) -> dict[str, Any]:
    """Several configs as one, by the rules of `lightning fit`."""
    merged: dict[str, Any] = {}
    with one_line_errors():
        for section in SECTIONS:
            parser = _whole_parser(section, names_data_class(*layers))
            parts = [{section: layer[section]} for layer in layers if section in layer]
            merged |= _dump(parser, *parts)
    return merged


def _dump(parser: LightningArgumentParser, *layers: dict[str, Any]) -> dict[str, Any]:
    """Parse values one after the other, and return plain ones."""
    parsed = None
    for layer in layers or ({},):
        parsed = parser.parse_object(copy.deepcopy(layer), namespace=parsed)
    plain: dict[str, Any] = json.loads(parser.dump(parsed, format="json", skip_unset=False, skip_validation=True))
    return plain


def _whole_parser(section: str, data_class: bool = False) -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    if section == "trainer":
        parser.add_lightning_class_args(Trainer, section)
    elif section == "model":
        parser.add_lightning_class_args(SuiteModule, section, subclass_mode=True)
    elif section == "data" and data_class:
        parser.add_lightning_class_args(LightningDataModule, section, subclass_mode=True)
    elif section == "data":
        parser.add_lightning_class_args(LatentDataModule, section)
    else:
        add_init(parser)
    return parser


def names_data_class(*layers: dict[str, Any]) -> bool:
    """Whether the section `data` names its class, and isn't the arguments of `LatentDataModule`."""
    return any("class_path" in (layer.get("data") or {}) for layer in layers)


def build_model(resolved: dict[str, Any]) -> SuiteModule:
    """Build the model of a resolved config, with its own random initialisation.

    Raises:
        ValueError: an argument that fits its type, but that the part it is for refuses.
    """
    model: SuiteModule = _build(resolved, "model").model
    return model


def build_data(resolved: dict[str, Any]) -> LightningDataModule:
    """Build the data module of a resolved config; as `build_model`."""
    data: LightningDataModule = _build(resolved, "data").data
    return data


def _build(resolved: dict[str, Any], section: str) -> Any:
    parser = _whole_parser(section, names_data_class(resolved))
    with one_line_errors():
        config = parser.parse_object({section: copy.deepcopy(resolved[section])})
    with constructor_errors():
        return parser.instantiate(config)


def add_init(parser: LightningArgumentParser) -> None:
    """Add the section `init` to a parser."""
    parser.add_argument("--init", type=InitialWeights | None, default=None, help="initial weights; null: random")


@contextlib.contextmanager
def one_line_errors(section: str = "") -> Iterator[None]:
    """Turn what jsonargparse says of a config, or of one section's arguments, into a ValueError of one line."""
    try:
        yield
    except ArgumentError as error:
        parts = [Trainer, *(cls for base in FAMILIES for cls in (base, *subclasses(base)))]
        keys = {name for cls in parts for name in inspect.signature(vars(cls).get("__init__", len)).parameters}
        raise ValueError(summarise_config_error(str(error), keys, KNOWN_CLASSES, section)) from error


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

"""Classes by name: the suite's own by their plain name, a user's own by their dotted path.

A name may stand in a file: a checkpoint, a model folder, a store's index. Importing a module runs its code, so a name
from a file never decides what is imported. `import_class` looks only into packages that are imported already, or that
the user allowed: by `import my_package` in Python, by `--import my_package` on the command line, or by the environment
variable `MNTP_IMPORT=my_package[,another]`. A path that the user types (in a config, on the command line) is imported
as it is: typing it is the choice.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

ALLOWED = "MNTP_IMPORT"
_OURS = ("mntp", "data_modules", "callbacks", "experiments")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or the empty string."""
    near = difflib.get_close_matches(word.rpartition(".")[-1], sorted(set(known)), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def allow_imports(packages: Iterable[str]) -> None:
    """Let names in files lead to classes of these packages, in this process and in those that it starts.

    Args:
        packages: names of top-level packages. Each is imported now.

    Raises:
        ValueError: a package can't be imported.
    """
    named = [package.partition(".")[0] for package in packages]
    for package in named:
        _import_module(package)
    os.environ[ALLOWED] = ",".join(dict.fromkeys([*_allowed(), *named]))


def import_class(path: str, base: type[Any], family: str) -> type[Any]:
    """Find a class by the dotted path that stands in a file.

    Args:
        path: of the class, `my_package.module.MyClass`.
        base: what it must be a subclass of.
        family: what such classes are, for the message ("tokenizer").

    Raises:
        ValueError: its package is neither imported nor allowed (see the module), there is no such class, or it is
            not a subclass of `base`.
    """
    module, _, name = path.rpartition(".")
    package = path.partition(".")[0]
    if package not in sys.modules and package not in _allowed():
        raise ValueError(
            f"{family} {path!r} is of the package {package!r}, which is not imported; a file alone can't decide that "
            f"its code is run: allow it by --import {package}, by {ALLOWED}={package} in the environment, or in "
            f"Python by import {package}"
        )
    found = getattr(_import_module(module), name, None)
    if not isinstance(found, type) or not issubclass(found, base):
        is_what = "there is no such class" if found is None else f"it is no subclass of {base.__name__}"
        raise ValueError(f"{family} {path!r}: {is_what}")
    return found


def find_class(name: str, known: Mapping[str, type[T]], family: str, base: type[Any] | None = None) -> type[T]:
    """Find a class by its name, as it stands in YAML, in a store or in a checkpoint.

    Args:
        name: a plain name of `known`, or a dotted path (see `import_class`).
        known: the suite's own classes by plain name.
        family: what the classes are, for the message ("tokenizer").
        base: what a class of a dotted path must be a subclass of; None takes plain names only.

    Raises:
        ValueError: no such class; the message lists the known ones and the nearest.
    """
    if name in known:
        return known[name]
    if base is not None and "." in name:
        return import_class(name, base, family)
    raise ValueError(f"unknown {family} class {name!r}; known: {', '.join(sorted(known))}{did_you_mean(name, known)}")


def class_name(cls: type[Any]) -> str:
    """The name by which `find_class` finds a class again: plain for the suite's own, dotted for a user's.

    Raises:
        ValueError: the class can't be imported, because it stands in a script or in a function.
    """
    if cls.__module__.partition(".")[0] in _OURS:
        return cls.__name__
    if cls.__module__ == "__main__" or cls.__qualname__ != cls.__name__:
        raise ValueError(
            f"{cls.__qualname__} of {cls.__module__} can't be imported by its name; define it at the top level of a "
            "module of your own package"
        )
    return f"{cls.__module__}.{cls.__name__}"


def build(spec: Mapping[str, Any], known: Mapping[str, type[T]], family: str, base: type[Any] | None = None) -> T:
    """Construct `spec["class"]` with `spec["settings"]` as keyword arguments; other arguments as of `find_class`.

    Raises:
        ValueError: an unknown class, or settings that it does not take.
    """
    cls = find_class(str(spec["class"]), known, family, base)
    try:
        return cls(**spec["settings"])
    except TypeError as error:
        raise ValueError(f"{family} {spec['class']} does not take its settings {spec['settings']}: {error}") from error


def _allowed() -> list[str]:
    """Packages that the environment allows."""
    return [package for package in os.environ.get(ALLOWED, "").split(",") if package]


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{name!r} can't be imported ({error}); install its package, or put its folder on PYTHONPATH"
        ) from error

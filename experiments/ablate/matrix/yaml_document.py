"""YAML that remembers its lines: every complaint about a matrix says file, line and key.

Names (keys, row ids, axis values) are taken as they are written, so that `on`, `off` and `no` stay words.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mntp.registry import did_you_mean


class _Loader(yaml.SafeLoader):
    """The safe loader, with YAML 1.2's floats: plain `yaml.safe_load` reads `1e-3` as a word."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+0123456789.")
)


def not_known(word: str, known: Iterable[str]) -> str:
    """Return what to say about a word that isn't among the `known` ones: all of them, and the nearest."""
    names = list(known)
    return f"{word!r} is not known here; known: {', '.join(names) or 'nothing'}{did_you_mean(word, names)}"


@dataclass(frozen=True)
class Entry:
    """One node of a YAML file, with the place it stands at.

    Attributes:
        path: the file.
        key: dotted place inside the file, for messages.
        node: the composed node.
        line: the line of the node's key (of the node itself in a list), the first being 1.
    """

    path: Path
    key: str
    node: yaml.Node
    line: int

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.path}:{self.line}"

    def error(self, message: str) -> ValueError:
        """Return (not raise) the error that says where, which key and what is wrong."""
        return ValueError(f"{self.where}: {self.key}: {message}" if self.key else f"{self.where}: {message}")

    def mapping(self) -> dict[str, "Entry"]:
        """Return the entries of a mapping by key; a key given twice is an error, and so is another kind of node."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"expected a mapping of keys to values, got {self._kind()}")
        entries: dict[str, Entry] = {}
        for key_node, value_node in self.node.value:
            line = key_node.start_mark.line + 1
            key = self._child("", key_node, line).text()
            entry = self._child(key, value_node, line)
            if key in entries:
                raise entry.error("this key is given twice")
            entries[key] = entry
        return entries

    def fields(self, known: Iterable[str], required: Iterable[str] = ()) -> dict[str, "Entry"]:
        """Return the entries of a mapping whose keys are fixed.

        Raises:
            ValueError: a key that isn't `known` (with the nearest known one), or a `required` one is absent.
        """
        names = list(known)
        entries = self.mapping()
        for key, entry in entries.items():
            if key not in names:
                raise entry.error(not_known(key, names))
        for key in required:
            if key not in entries:
                raise self.error(f"the key {key!r} is missing")
        return entries

    def text(self) -> str:
        """Return a scalar as it is written."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag.endswith(":null"):
            raise self.error(f"expected a word, got {self._kind()}")
        return str(self.node.value)

    def choice(self, known: Iterable[str]) -> str:
        """Return a scalar that must be one of the `known` names."""
        names, word = list(known), self.text()
        if word not in names:
            raise self.error(not_known(word, names))
        return word

    def integer(self, at_least: int = 0) -> int:
        """Return a whole number not below `at_least`."""
        value = self.value()
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise self.error(f"expected a whole number from {at_least} up, got {value!r}")
        return value

    def boolean(self) -> bool:
        """Return `true` or `false`."""
        value = self.value()
        if not isinstance(value, bool):
            raise self.error(f"expected true or false, got {value!r}")
        return value

    def items(self) -> Iterator["Entry"]:
        """Yield the entries of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"expected a list, got {self._kind()}")
        for index, node in enumerate(self.node.value):
            yield self._child(f"[{index}]", node, node.start_mark.line + 1)

    def value(self) -> Any:
        """Return the plain Python value of this node (what `yaml.safe_load` would give)."""
        loader = _Loader("")
        try:
            return loader.construct_document(self.node)
        except (yaml.YAMLError, ValueError) as error:
            raise self.error(_one_line(error)) from None
        finally:
            loader.dispose()

    def _child(self, key: str, node: yaml.Node, line: int) -> "Entry":
        return Entry(self.path, ".".join(part for part in (self.key, key) if part), node, line)

    def _kind(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        return "nothing" if self.node.tag.endswith(":null") else f"{self.node.value!r}"


def load_document(path: Path) -> Entry:
    """Read a YAML file as one located entry.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty or not YAML; the message says at which line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {_one_line(error)}") from None
    if node is None:
        raise ValueError(f"{path}: the file is empty")
    return Entry(path, "", node, node.start_mark.line + 1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

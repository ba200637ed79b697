"""A digest of the code that defines a number, so that a changed definition can't be mistaken for the old one.

The digest covers the syntax trees of the named classes and functions, and of every class, function and module constant
of the same packages that they refer to, wherever it is defined. Comments, docstrings, annotations, error messages, line
breaks, class methods (which construct objects in other ways) and the names of modules don't count.
"""

import ast
import copy
import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mntp.io.fingerprint import hash_text

OWN = "mntp"
"""The package whose definitions are followed, beside those of the named ones."""

_UNCOUNTED_FIELDS = ("kind", "type_comment", "type_params")


def code_digest(definitions: Sequence[Callable[..., Any]], without: Sequence[Callable[..., Any]] = ()) -> str:
    """Return 12 hex digits over what classes and functions do, in the same way on every version of Python.

    Args:
        definitions: classes and functions of modules that have a source file.
        without: classes and functions that are left out.

    Raises:
        ValueError: a definition isn't at the top level of a module with a source file.
    """
    packages = {OWN} | {definition.__module__.partition(".")[0] for definition in definitions}
    pending = [_place(definition) for definition in definitions]
    for module, name in pending:
        if name not in _symbols(module):
            raise ValueError(f"{module}.{name}: expected a class or function at the top level of a module's file")
    seen = {_place(definition) for definition in without}
    texts = set()
    while pending:
        place = pending.pop()
        node = None if place in seen else _symbols(place[0]).get(place[1])
        seen.add(place)
        if isinstance(node, _Import):
            if node.module.partition(".")[0] in packages:
                pending.append((node.module, node.name))
        elif node is not None:
            node = _Definition().visit(copy.deepcopy(node))
            texts.add(_text(node))
            pending += _used(node, place[0])
    return hash_text("\n".join(sorted(texts)))


def read_source(module: str) -> str:
    """Return the source text of a module.

    Raises:
        ValueError: it has no source file.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"{module}: has no source file; define it in a .py file")
    return Path(spec.origin).read_text(encoding="utf-8")


class _Import:
    """A name that a module takes from another one."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Definition(ast.NodeTransformer):
    """Removes what doesn't change a result."""

    def visit_Raise(self, node: ast.Raise) -> ast.AST:  # the name that NodeTransformer looks for
        return ast.Raise()

    def visit_Assert(self, node: ast.Assert) -> None:
        return None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Docstrings, of classes, functions and attributes alike, and the dots of abstract methods."""
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return ast.AnnAssign(node.target, ast.Constant(None), self.visit(node.value) if node.value else None, 1)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        names = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
        node.returns = None
        return None if "classmethod" in names else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg)


def _place(definition: Callable[..., Any]) -> tuple[str, str]:
    return definition.__module__, definition.__qualname__


def _symbols(module: str) -> "dict[str, ast.stmt | _Import]":
    """What a module's top level defines or imports, by name."""
    return _parsed(read_source(module))


@functools.lru_cache(maxsize=64)
def _parsed(source: str) -> "dict[str, ast.stmt | _Import]":
    symbols: dict[str, ast.stmt | _Import] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom):
            symbols |= {name: found for name, found in _imported(node)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            symbols[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and _is_stored(part)]
            symbols |= dict.fromkeys(names, node)
    return symbols


def _is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _imported(node: ast.ImportFrom) -> Iterator[tuple[str, _Import]]:
    for alias in node.names:
        yield alias.asname or alias.name, _Import(node.module or "", alias.name)


def _used(node: ast.AST, module: str) -> list[tuple[str, str]]:
    """Where the names that a definition refers to may be defined; those of locals and builtins lead nowhere."""
    places = []
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            places.append((module, part.id))
        elif isinstance(part, ast.ImportFrom) and (part.module or "").partition(".")[0] == OWN:
            places += [(found.module, found.name) for _, found in _imported(part)]
    return places


def _text(node: Any) -> str:
    """A syntax tree as text; `ast.dump` gives another one in every other version of Python."""
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in _UNCOUNTED_FIELDS]
    return f"{type(node).__name__}({','.join(f'{k}={_text(v)}' for k, v in fields if v not in (None, []))})"

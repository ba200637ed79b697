"""The modules of the suite and what they import, read from the source without running it."""

import ast
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("mntp", "data_modules", "callbacks", "experiments")


@dataclass(frozen=True)
class Import:
    """One import statement's use of one of our modules.

    Attributes:
        module: the importing module.
        imported: the imported module.
        lazy: whether the statement stands inside a function.
    """

    module: str
    imported: str
    lazy: bool


def find_modules(root: Path) -> dict[str, Path]:
    """Our modules by dotted name; a package stands for its `__init__.py`."""
    files = (path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    return {_dotted(path.relative_to(root)): path for path in files}


def find_imports(modules: dict[str, Path]) -> list[Import]:
    """All imports of one of `modules` by another.

    Raises:
        ValueError: a relative import, or one of a module of ours that doesn't exist.
    """
    found = []
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        lazy = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            for name in _imported(node, modules, path):
                if name != module:
                    found.append(Import(module, name, id(node) in lazy))
    return found


def folder_of(module: str, modules: dict[str, Path]) -> str:
    """The package in which a module lies; a package lies in itself."""
    return module if modules[module].name == "__init__.py" else module.rpartition(".")[0]


def _imported(node: ast.AST, modules: dict[str, Path], path: Path) -> list[str]:
    """Our modules that a statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise ValueError(f"{path}:{node.lineno}: a relative import; expected the full name of the module")
        module = node.module or ""
        names = [full if (full := f"{module}.{alias.name}") in modules else module for alias in node.names]
    else:
        return []
    ours = [name for name in names if name.partition(".")[0] in PACKAGES]
    if absent := [name for name in ours if name not in modules]:
        raise ValueError(f"{path}: imports {absent[0]}, which doesn't exist")
    return ours


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")

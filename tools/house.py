"""How the source is laid out, in figures: `python -m tools.house [ROOT ...]` prints a column for each checkout.

Counted are the Python files of `mntp`, `data_modules`, `callbacks` and `experiments`. A folder is one that holds
modules. The length of a function goes from its `def` to its last line, docstring included. A complex block is a
function, method or class of cyclomatic complexity above 10, grade C or worse of radon. With `--trips`, one cell is
trained in each checkout and three commands are watched: see `tools/trips.py`.
"""

import argparse
import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.imports import PACKAGES, find_imports, find_modules, folder_of
from tools.trips import TRIPS, measure_trips

COMPLEX = 10  # above it, radon's grade is C or worse
Figures = dict[str, str]


def layout(root: Path) -> Figures:
    """Folders, files, lines and imports of a checkout."""
    modules = find_modules(root)
    lines = {name: len(path.read_text().splitlines()) for name, path in modules.items()}
    per_folder = Counter(folder_of(name, modules) for name in modules)
    imports = {(each.module, each.imported) for each in find_imports(modules)}
    across = [(folder_of(a, modules), folder_of(b, modules)) for a, b in imports]
    across = [(a, b) for a, b in across if a != b]
    pairs = set(across)
    tests = sum(len(path.read_text().splitlines()) for path in (root / "tests").rglob("*.py"))
    return {
        "folders": str(len(per_folder)),
        "files": str(len(modules)),
        "files a folder, median / most": f"{statistics.median(per_folder.values()):g} / {max(per_folder.values())}",
        "lines": str(sum(lines.values())),
        "lines of tests": str(tests),
        "imports between modules": str(len(imports)),
        "imports between folders": str(len(across)),
        "pairs of folders with imports": str(len(pairs)),
        "of them within experiments": str(sum(a[:11] == b[:11] == "experiments" for a, b in pairs)),
        "pairs that import each other": str(sum(pair[::-1] in pairs for pair in pairs) // 2),
        "lines a file, median / p95 / most": _spread([count for count in lines.values() if count]),
    }


def functions(root: Path) -> Figures:
    """Lengths of functions, and the share of public classes and functions that have a docstring."""
    lengths, documented, public = [], 0, 0
    for path in find_modules(root).values():
        for node, is_public in _definitions(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                lengths.append(node.end_lineno - node.lineno + 1)
            public += is_public
            documented += is_public and ast.get_docstring(node) is not None
    return {
        "lines a function, median / p95 / most": _spread(lengths),
        "public definitions with a docstring": f"{documented} of {public}",
    }


def complexity(root: Path) -> Figures:
    """Complex blocks per 1,000 lines, for each package."""
    try:
        from radon.complexity import cc_visit
    except ImportError:
        return {f"complex blocks per 1,000 lines, {package}": "radon is not installed" for package in PACKAGES}
    figures = {}
    for package in PACKAGES:
        sources = [path.read_text() for path in (root / package).rglob("*.py")]
        count = sum(block.complexity > COMPLEX for source in sources for block in cc_visit(source))
        lines = sum(len(source.splitlines()) for source in sources)
        figures[f"complex blocks per 1,000 lines, {package}"] = f"{1000 * count / max(lines, 1):.1f} ({count})"
    return figures


def trips(root: Path, folder: Path) -> Figures:
    """Modules, and folders, that the three trips run through."""
    figures = {}
    measured = measure_trips(root, folder, PACKAGES)
    for trip in TRIPS:
        paths = [Path(path) for path in measured[trip]]
        own = sum(path.parts[0] == "experiments" for path in paths)
        folders = len({path.parent for path in paths})
        figures[f"trip {trip}: modules / of experiments / folders"] = f"{len(paths)} / {own} / {folders}"
    return figures


def _definitions(tree: ast.AST, public: bool = True) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, bool]]:
    """All classes and functions, and whether each is public: no part of its name begins with an underscore."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            named = public and not node.name.startswith("_")
            yield node, named
            yield from _definitions(node, named and isinstance(node, ast.ClassDef))
        else:
            yield from _definitions(node, public)


def _spread(values: Sequence[int]) -> str:
    """Median, 95th percentile (nearest rank) and largest."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):g} / {ordered[-(-95 * len(ordered) // 100) - 1]} / {ordered[-1]}"


def main() -> None:
    """Print the figures of one or more checkouts side by side, as a Markdown table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("roots", nargs="*", type=Path, help="checkouts, oldest first (default: this one)")
    parser.add_argument("--trips", type=Path, metavar="FOLDER", help="walk the three trips too; keeps their runs there")
    options = parser.parse_args()
    roots = options.roots or [Path(__file__).parents[1]]
    columns = []
    for root in roots:
        figures = layout(root) | functions(root) | complexity(root)
        if options.trips:
            figures |= trips(root, options.trips / "-".join(root.resolve().parts[1:]))
        columns.append(figures)
    rows = [["", *(str(root) for root in roots)], ["---"] * (len(roots) + 1)]
    rows += [[name, *(column[name] for column in columns)] for name in columns[0]]
    sys.stdout.write("".join(f"| {' | '.join(row)} |\n" for row in rows))


if __name__ == "__main__":
    main()

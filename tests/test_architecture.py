"""Who may import whom, as `docs/architecture.md` says, and that importing does nothing."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tools.imports import PACKAGES, Import, find_imports, find_modules, folder_of

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()
MODULES = find_modules(ROOT)
IMPORTS = find_imports(MODULES)


def table(first_heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading, each a list of its columns."""
    lines = DOCUMENT.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_heading} |")) + 2
    rows = []
    while start < len(lines) and lines[start].startswith("|"):
        rows.append([column.strip() for column in lines[start].strip("|").split("|")])
        start += 1
    return rows


def names(column: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", column)


RULES = {names(room)[0]: names(allowed) for room, _, allowed in table("Room")}
FACADES = {(names(module)[0], names(imported)[0]) for module, imported, _ in table("Facade")}
WITHOUT_TORCH = names(DOCUMENT.partition("These work without torch")[2].partition("\n\n")[0])


def room(module: str) -> str:
    """A module that lies directly in `mntp` or `data_modules` is a room; any other belongs to its folder."""
    folder = folder_of(module, MODULES)
    return module if folder in ("mntp", "data_modules") else folder


def crossings() -> Iterator[Import]:
    """Imports from one room into another, less those of facades."""
    for each in IMPORTS:
        if room(each.module) != room(each.imported) and (each.module, room(each.imported)) not in FACADES:
            yield each


def allowed(importer: str) -> set[str]:
    """Rooms that a room may import."""
    found = set()
    for name in RULES[importer]:
        prefix = name.removesuffix("*")
        found |= {other for other in RULES if other.startswith(prefix)} if name.endswith(".*") else {name}
    return found - {importer}


def test_every_room_of_the_tree_is_in_the_table_and_every_room_of_the_table_exists() -> None:
    rooms = {room(module) for module in MODULES}
    assert not rooms - set(RULES), "add a line to the table of docs/architecture.md"
    assert not set(RULES) - rooms, "remove the line from the table of docs/architecture.md"


@pytest.mark.parametrize("importer", RULES)
def test_a_room_imports_only_what_the_table_allows(importer: str) -> None:
    wrong = [
        f"{each.module} imports {each.imported}"
        for each in crossings()
        if room(each.module) == importer and room(each.imported) not in allowed(importer)
    ]
    assert not wrong, f"docs/architecture.md doesn't allow it: {'; '.join(wrong)}"


def test_the_table_allows_only_imports_of_rooms_above() -> None:
    order = list(RULES)
    for importer, its_names in RULES.items():
        above = order[: order.index(importer)]
        assert not [name for name in its_names if not name.endswith(".*") and name not in above], importer
    pairs = {(room(each.module), room(each.imported)) for each in crossings()}
    assert not [pair for pair in pairs if order.index(pair[1]) > order.index(pair[0])]


def test_no_two_rooms_import_each_other() -> None:
    pairs = {(room(each.module), room(each.imported)) for each in crossings()}
    assert not {pair for pair in pairs if pair[::-1] in pairs}


def test_facades_import_upward_only_when_they_are_asked() -> None:
    for facade, imported in FACADES:
        assert MODULES[facade].name == "__init__.py"
        found = [each for each in IMPORTS if each.module == facade and room(each.imported) == imported]
        assert found and all(each.lazy for each in found), f"{facade} is no facade of {imported}"


def test_no_folder_is_crowded() -> None:
    match = re.search(r"A folder holds at most (\d+) files.*?; `(\w+)` holds at most (\d+)", DOCUMENT, re.S)
    assert match
    limits = {match[2]: int(match[3])}
    for folder in {MODULES[module].parent for module in MODULES}:
        siblings = [path.name for path in folder.iterdir() if not path.name.startswith((".", "__"))]
        limit = limits.get(folder.relative_to(ROOT).as_posix(), int(match[1]))
        assert len(siblings) <= limit, f"{folder} holds {len(siblings)}"


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_what_only_looks_at_results_needs_no_torch(name: str) -> None:
    modules = [module for module in MODULES if room(module) == name] or [name]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_page_names_exists() -> None:
    for name in names(DOCUMENT):
        if "/" in name:
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"\w+(\.\w+)+", name) and name.partition(".")[0] in (*PACKAGES, "tools"):
            module = name
            while module not in MODULES and not (ROOT / module.replace(".", "/")).with_suffix(".py").is_file():
                module = module.rpartition(".")[0]
                assert module, f"{name} is no module"
            found = import_module(module)
            for attribute in filter(None, name[len(module) + 1 :].split(".")):
                assert hasattr(found, attribute), f"{name} doesn't exist"
                found = getattr(found, attribute)


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_nothing_unsafe_or_left_over() -> None:
    for package in PACKAGES:
        for path in files(package):
            text = path.read_text()
            assert "yaml.load(" not in text, path
            assert "torch.load(" not in text or "weights_only=True" in text, path
            for word in ("NotImplementedError", "TODO", "FIXME", "except Exception", "except:"):
                assert word not in text, f"{path}: {word}"


def test_importing_everything_writes_nothing_and_opens_no_socket(tmp_path: Path) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in files(package)
        if path.name != "__main__.py"
    ]
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise RuntimeError('a socket at import')\n"
        "socket.socket.connect = refuse\n"
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_libraries_of_public_models_are_imported_only_with_a_model(tmp_path: Path) -> None:
    """Lightning's torchmetrics imports the top of transformers where it is installed; no model and no diffusers."""
    code = (
        "import sys\n"
        "from mntp.text import HashedText\n"
        "from mntp.tokenizers import MelTokenizer\n"
        "HashedText(), MelTokenizer()\n"
        "import experiments.config.lightning_cli, experiments.runs.run\n"
        "import experiments.commands.generate, experiments.commands.prepare\n"
        "heavy = ('diffusers', 'transformers.models.clap', 'transformers.models.t5', 'transformers.modeling_utils')\n"
        "print(sorted(name for name in heavy if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
    for path in (path for package in PACKAGES for path in files(package)):
        top = {node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)}
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        lazily = {"transformers", "diffusers", "huggingface_hub", "laion_clap"}
        assert not lazily & {name.partition(".")[0] for name in names}, path

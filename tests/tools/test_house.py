from pathlib import Path

import pytest

from tools.house import complexity, functions, layout
from tools.imports import find_imports, find_modules
from tools.trips import visited_modules

A = '''"""A."""
import experiments.b
from mntp.one.c import grow

def call():
    """Call."""
    from mntp.one import d
    return d.twice(grow(1))

class Thing:
    def work(self):
        return 1
    def _hidden(self):
        return 2
'''
BRANCHES = "".join(f"    if x == {n}:\n        return {n}\n" for n in range(12))
C = f"import experiments.b\n\ndef grow(x):\n{BRANCHES}    return x\n\n_ = [grow(0) for _ in range(2)]\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two folders that import each other, and one complex function."""
    for name, text in {
        "experiments/__init__.py": "",
        "experiments/a.py": A,
        "experiments/b.py": "",
        "mntp/one/__init__.py": "",
        "mntp/one/c.py": C,
        "mntp/one/d.py": "def twice(x):\n    return 2 * x\n\ndef unused():\n    return 0\n",
        "tests/test_a.py": "pass\npass\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_are_read_without_running_anything(root: Path) -> None:
    found = {(each.module, each.imported, each.lazy) for each in find_imports(find_modules(root))}
    assert found == {
        ("experiments.a", "experiments.b", False),
        ("experiments.a", "mntp.one.c", False),
        ("experiments.a", "mntp.one.d", True),
        ("mntp.one.c", "experiments.b", False),
    }
    (root / "experiments" / "b.py").write_text("from mntp.one import c\nfrom mntp.two import e\n")
    with pytest.raises(ValueError, match=r"b\.py: imports mntp\.two, which doesn't exist"):
        find_imports(find_modules(root))


def test_the_figures_of_a_small_tree(root: Path) -> None:
    figures = layout(root) | functions(root)
    assert figures == {
        "folders": "2",
        "files": "6",
        "files a folder, median / most": "3 / 3",
        "lines": "49",
        "lines of tests": "2",
        "imports between modules": "4",
        "imports between folders": "3",
        "pairs of folders with imports": "2",
        "of them within experiments": "0",
        "pairs that import each other": "1",
        "lines a file, median / p95 / most": "14 / 30 / 30",
        "lines a function, median / p95 / most": "2 / 26 / 26",
        "public definitions with a docstring": "1 of 6",
    }


def test_complex_blocks_are_counted(root: Path) -> None:
    pytest.importorskip("radon")
    figures = complexity(root)
    assert figures["complex blocks per 1,000 lines, mntp"] == f"{1000 / 35:.1f} (1)"
    assert figures["complex blocks per 1,000 lines, experiments"] == "0.0 (0)"


def test_a_trip_counts_the_modules_whose_functions_run_and_not_what_is_imported(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "trip").mkdir()  # packages of other names than ours, which are loaded already
    (root / "trip" / "enter.py").write_text("import trip.helped\n\ndef enter():\n    return trip.helped.used()\n")
    (root / "trip" / "helped.py").write_text("import trip.idle\n\ndef used():\n    return list(x for x in 'ab')\n")
    (root / "trip" / "idle.py").write_text("def make():\n    return 1\n\nMADE = make()\n")
    monkeypatch.syspath_prepend(str(root))

    def act() -> None:
        import trip.enter  # type: ignore[import-not-found]  # written above

        trip.enter.enter()

    assert visited_modules(root, ("trip",), act) == ["trip/enter.py", "trip/helped.py"]

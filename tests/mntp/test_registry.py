"""Names of classes that stand in files: plain or dotted, and never a reason to import a package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mntp.registry import ALLOWED, allow_imports, class_name, find_class, import_class
from mntp.tokenizers import TOKENIZERS, MelTokenizer, Tokenizer


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that says when it is imported."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("from pathlib import Path\n(Path(__file__).parent / 'ran').touch()\n")
    (folder / "parts.py").write_text(
        "from mntp.tokenizers import MelTokenizer\nclass Own(MelTokenizer): pass\nclass Other: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(ALLOWED, "")
    yield name
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


def test_a_name_in_a_file_imports_nothing_on_its_own(package: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"--import {package}, by MNTP_IMPORT={package}"):
        import_class(f"{package}.parts.Own", Tokenizer, "tokenizer")
    for path in (".parts.Own", "..Own", f"{package}."):
        with pytest.raises(ValueError, match="not imported"):
            import_class(path, Tokenizer, "tokenizer")
    assert not (tmp_path / package / "ran").exists()
    assert package not in sys.modules


def test_an_allowed_package_is_imported_and_processes_started_from_here_know_of_it(package: str) -> None:
    allow_imports([package])
    allow_imports([package])
    assert os.environ[ALLOWED] == package
    found = import_class(f"{package}.parts.Own", Tokenizer, "tokenizer")
    assert issubclass(found, MelTokenizer)
    assert found.__module__ == f"{package}.parts"
    assert class_name(found) == f"{package}.parts.Own"
    code = f"from mntp.registry import import_class as f; print(f({class_name(found)!r}, object, 'part').__name__)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "Own\n"


def test_an_imported_package_needs_no_permission(package: str) -> None:
    __import__(package)
    assert find_class(f"{package}.parts.Own", TOKENIZERS, "tokenizer", Tokenizer).__name__ == "Own"


def test_only_classes_of_the_family_are_found(package: str) -> None:
    allow_imports([package])
    for path, reason in (
        (f"{package}.parts.Other", "no subclass of Tokenizer"),
        (f"{package}.parts.Absent", "no such class"),
        (f"{package}.absent.Own", "can't be imported"),
        ("os.system", "no subclass of Tokenizer"),
    ):
        with pytest.raises(ValueError, match=reason):
            import_class(path, Tokenizer, "tokenizer")
    with pytest.raises(ValueError, match="can't be imported"):
        allow_imports(["no_such_package_anywhere"])


def test_the_suites_own_classes_have_plain_names() -> None:
    assert class_name(MelTokenizer) == "MelTokenizer"
    assert find_class("MelTokenizer", TOKENIZERS, "tokenizer", Tokenizer) is MelTokenizer
    assert find_class("mntp.tokenizers.MelTokenizer", TOKENIZERS, "tokenizer", Tokenizer) is MelTokenizer
    with pytest.raises(ValueError, match=r"unknown tokenizer class 'MelTokeniser'.*did you mean 'MelTokenizer'"):
        find_class("MelTokeniser", TOKENIZERS, "tokenizer", Tokenizer)

    class Local(MelTokenizer):
        pass

    with pytest.raises(ValueError, match="top level of a module"):
        class_name(Local)

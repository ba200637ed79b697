"""`--import`, the option of every command."""

import os
import subprocess
import sys

import pytest

from experiments.config.imports import take_imports
from mntp.registry import ALLOWED


def test_packages_are_imported_and_the_other_words_stay_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "")
    words = ["generate", "a dog", "--import", "wave", "--seed", "1", "--import=colorsys", "--ckpt", "x", "--imports"]
    assert take_imports(words) == ["generate", "a dog", "--seed", "1", "--ckpt", "x", "--imports"]
    assert os.environ[ALLOWED] == "wave,colorsys"
    assert {"wave", "colorsys"} <= set(sys.modules)
    assert take_imports(["--", "a"]) == ["--", "a"]


def test_a_package_that_is_not_there_is_one_line() -> None:
    words = [sys.executable, "-m", "experiments", "prepare", "--import", "no_such_one"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'no_such_one' can't be imported")
    assert done.stderr.count("\n") == 1

import ast
from pathlib import Path

import pytest

from tools.mutants import TARGETS, draw_mutants, mutants_of, run_tests, try_mutants

ROOT = Path(__file__).parents[2]
SOURCE = '''"""Module."""
import math

def area(width: float, height: float = 2.0) -> float:
    """Area of 1 x 2."""
    if not width > 0 or height < 0:
        raise ValueError(f"{width + 1}")
    total = min(width, 1) * height
    return -total
'''
CHANGES = {
    "def area(width: float, height: float = 4.0) -> float:",
    "    if (not width > 0 and height < 0):",
    "    if (width > 0) or height < 0:",
    "    if not (width >= 0) or height < 0:",
    "    if not width > 0 or (height <= 0):",
    "    if not width > 1 or height < 0:",
    "    if not width > 0 or height < 1:",
    "    total = (min(width, 1) / height)",
    "    total = (max(width, 1)) * height",
    "    total = min(width, 2) * height",
    "    return (total)",
}


def write_tree(root: Path, test: str) -> None:
    (root / "mntp").mkdir()
    (root / "mntp" / "area.py").write_text(SOURCE)
    (root / "tests").mkdir()
    (root / "tests" / "test_area.py").write_text(f"from mntp.area import area\n\n\ndef test_area():\n    {test}\n")


def test_every_kind_of_expression_is_changed_and_prose_is_left_alone(tmp_path: Path) -> None:
    write_tree(tmp_path, "pass")
    mutants = mutants_of("mntp/area.py", tmp_path, ())
    changed = []
    for mutant in mutants:
        ast.parse(mutant.source)
        minus, plus = mutant.diff(tmp_path).splitlines()
        assert minus == f"-{SOURCE.splitlines()[mutant.line - 1]}"
        changed.append(plus[1:])
    assert sorted(changed) == sorted(CHANGES)


def test_survivors_are_told_apart_and_not_tried_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, "assert area(1.0) == -2 and area(0.5) == -1")
    mutants = mutants_of("mntp/area.py", tmp_path, ("tests/test_area.py",))
    chosen = [each for each in mutants if each.line in (8, 9)]
    results = tmp_path / "build" / "results.jsonl"
    tried = try_mutants(chosen, tmp_path, results)
    survived = [line["diff"] for line in tried if line["outcome"] == "survived"]
    assert survived == ["-    total = min(width, 1) * height\n+    total = min(width, 2) * height"]
    assert len(results.read_text().splitlines()) == len(chosen) == 4
    assert (tmp_path / "mntp" / "area.py").read_text() == SOURCE
    monkeypatch.setattr("tools.mutants.run_tests", lambda *_: pytest.fail("tried again"))
    assert try_mutants(chosen, tmp_path, results) == tried
    (tmp_path / "tests" / "test_area.py").write_text("")  # other tests: another question
    with pytest.raises(pytest.fail.Exception, match="tried again"):
        try_mutants(chosen, tmp_path, results)


def test_a_mutant_that_never_ends_is_stopped(tmp_path: Path) -> None:
    write_tree(tmp_path, "while True: pass")
    assert run_tests(tmp_path, ["tests/test_area.py"], limit=5) == "timeout"


def test_tests_that_fail_without_a_mutation_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, "assert area(1.0) == 3")
    mutants = mutants_of("mntp/area.py", tmp_path, ("tests/test_area.py",))
    with pytest.raises(SystemExit, match=r"the tests fail without a mutation: tests/test_area\.py"):
        try_mutants(mutants, tmp_path, tmp_path / "results.jsonl")


def test_the_sample_is_a_function_of_its_seed_and_has_its_share_of_every_file() -> None:
    sample = draw_mutants(ROOT, 60, seed=0)
    assert [each.key for each in sample] == [each.key for each in draw_mutants(ROOT, 60, seed=0)]
    assert len({each.key for each in sample}) == 60
    assert {each.key for each in sample} != {each.key for each in draw_mutants(ROOT, 60, seed=1)}
    per_file = {path: sum(each.path == path for each in sample) for path in {each.path for each in sample}}
    assert max(per_file.values()) <= 2 + min(per_file.values())
    for pattern, tests in TARGETS.items():
        assert all((ROOT / name).exists() for name in tests), pattern

"""Mutation testing of the central files: change one expression, and some test must fail.

    python -m tools.mutants --sample 60 --seed 0

draws mutants evenly over the files below, runs the tests that concern each file in a copy of the repository, and
prints those that no test noticed. Results are appended to a file of JSON lines; a mutant that was tried with the same
source and tests isn't tried again, so an interrupted pass goes on where it stopped. Tools from PyPI mutate whole
packages against whole test suites, without a sample, a file's own tests, or a bound on the time; ours takes hours.
"""

import argparse
import ast
import copy
import difflib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path("build/mutants.jsonl")
COPIED = ("callbacks", "data_modules", "experiments", "mntp", "tests", "docs", "pyproject.toml", "ablations.yaml")

SYSTEM_TESTS = (
    "tests/mntp/systems/test_systems.py",
    "tests/mntp/systems/test_training_step.py",
    "tests/mntp/systems/test_golden_losses.py",
    "tests/mntp/samplers/test_samplers.py",
    "tests/mntp/samplers/test_parallel_decoding.py",
)
SAMPLER_TESTS = (
    "tests/mntp/samplers",
    "tests/mntp/conditioning/test_guidance.py",
    "tests/mntp/systems/test_systems.py",
)
HEAD_TESTS = ("tests/mntp/heads/test_diffusion_head.py", "tests/mntp/heads/test_heads.py")
# Files, and the tests that are run for a mutant of each.
TARGETS: dict[str, tuple[str, ...]] = {
    "mntp/masking/masks.py": ("tests/mntp/masking", "tests/mntp/systems/test_systems.py"),
    "mntp/masking/ratios.py": ("tests/mntp/masking",),
    "mntp/samplers/autoregressive.py": SAMPLER_TESTS,
    "mntp/samplers/drawing.py": SAMPLER_TESTS,
    "mntp/samplers/masked.py": SAMPLER_TESTS,
    "mntp/samplers/noise.py": SAMPLER_TESTS,
    "mntp/samplers/orders.py": SAMPLER_TESTS,
    "mntp/samplers/settings.py": SAMPLER_TESTS,
    "mntp/heads/solvers.py": HEAD_TESTS,
    "mntp/heads/schedules.py": HEAD_TESTS,
    "mntp/heads/diffusion.py": HEAD_TESTS,
    "mntp/heads/flow.py": HEAD_TESTS,
    "mntp/systems/registry.py": ("tests/mntp/inference", "tests/experiments/config/test_extension.py"),
    "mntp/systems/audio_*.py": SYSTEM_TESTS,
    "mntp/systems/base.py": SYSTEM_TESTS,
    "mntp/systems/held_out.py": SYSTEM_TESTS,
    "mntp/systems/optimisation.py": SYSTEM_TESTS,
    "mntp/metrics/frechet.py": ("tests/mntp/metrics/test_frechet.py",),
    "mntp/metrics/kernel.py": ("tests/mntp/metrics",),
    "mntp/metrics/inception.py": ("tests/mntp/metrics/test_inception.py",),
    "data_modules/epoch_order.py": ("tests/data_modules/test_epoch_order.py",),
    "experiments/scoring/intervals.py": ("tests/experiments/scoring/test_intervals.py",),
}

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
CALLS = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "floor": "ceil", "ceil": "floor",
    "any": "all", "all": "any", "sin": "cos", "cos": "sin", "zeros": "ones", "ones": "zeros",
    "zeros_like": "ones_like", "ones_like": "zeros_like", "sum": "mean", "mean": "sum", "log": "exp", "exp": "log",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One changed expression or statement.

    Attributes:
        path: the file, relative to the repository.
        line: where the change begins, counted from 1.
        source: the whole changed file.
        tests: the tests to run.
        key: a hash of the path and the changed source.
    """

    path: str
    line: int
    source: str
    tests: tuple[str, ...]

    @property
    def key(self) -> str:
        """Hash of path and changed source."""
        return hashlib.sha256(f"{self.path}\n{self.source}".encode()).hexdigest()[:16]

    def diff(self, root: Path) -> str:
        """The changed lines, as a unified diff without context."""
        before = (root / self.path).read_text().splitlines()
        lines = difflib.unified_diff(before, self.source.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if line[:3] not in ("---", "+++", "@@ "))


def mutations(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, ast.AST]]:
    """Every node of a module that can be changed, with what takes its place.

    Left alone: annotations, decorators, docstrings, the text of errors, f-strings, and statements of import.
    """
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.expr | ast.stmt):
            for changed in _changes(node):
                yield node, changed
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
                continue
            children = value if isinstance(value, list) else [value]
            skipped = ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom
            stack += [child for child in children if isinstance(child, ast.AST) and not isinstance(child, skipped)]


def _changes(node: ast.expr | ast.stmt) -> Iterator[ast.AST]:
    """What may take the place of one node."""
    changed = copy.deepcopy(node)
    match changed:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            changed.ops = [COMPARISONS[type(operator)]()]
            yield changed
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            changed.op = OPERATORS[type(op)]()
            yield changed
        case ast.BoolOp():
            changed.op = ast.Or() if isinstance(changed.op, ast.And) else ast.And()
            yield changed
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert()):
            yield changed.operand
        case ast.IfExp():
            changed.body, changed.orelse = changed.orelse, changed.body
            yield changed
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(2 * value if value else 1.0)
        case ast.Call(func=ast.Attribute(attr=name)) if name in CALLS:
            assert isinstance(changed.func, ast.Attribute)
            changed.func.attr = CALLS[name]
            yield changed
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            changed.func = ast.Name(CALLS[name])
            yield changed
        case ast.Expr(value=ast.Call() | ast.YieldFrom()) | ast.Continue() | ast.Break():
            yield ast.Pass()


def mutants_of(path: str, root: Path, tests: tuple[str, ...]) -> list[Mutant]:
    """All mutants of a file, from top to bottom."""
    source = (root / path).read_text()
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    found = {}
    for node, changed in mutations(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        begin = offsets[node.lineno - 1] + node.col_offset
        end = offsets[node.end_lineno - 1] + node.end_col_offset
        text = ast.unparse(ast.fix_missing_locations(changed))
        if isinstance(node, ast.expr) and not isinstance(changed, ast.Constant):
            text = f"({text})"
        raw = source.encode()
        mutated = (raw[:begin] + text.encode() + raw[end:]).decode()
        compile(mutated, path, "exec")
        mutant = Mutant(path, node.lineno, mutated, tests)
        found[mutant.key] = mutant
    return sorted(found.values(), key=lambda mutant: (mutant.line, mutant.key))


def draw_mutants(root: Path, num_mutants: int, seed: int, only: str = "") -> list[Mutant]:
    """A sample without repetition, with as equal a share of every file as it has mutants.

    Args:
        root: the repository.
        num_mutants: of the sample; 0 takes all.
        seed: of the draw.
        only: files whose path begins so.
    """
    generator = random.Random(seed)
    pools = []
    for pattern, tests in TARGETS.items():
        paths = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))
        if not paths:
            raise SystemExit(f"{pattern} is no file: correct TARGETS in tools/mutants.py")
        for path in paths:
            pool = mutants_of(path, root, tests) if path.startswith(only) else []
            generator.shuffle(pool)
            pools.append(pool)
    drawn: list[Mutant] = []
    while any(pools) and (num_mutants == 0 or len(drawn) < num_mutants):
        for pool in generator.sample(pools, len(pools)):
            if pool and (num_mutants == 0 or len(drawn) < num_mutants):
                drawn.append(pool.pop())
    return drawn


def run_tests(folder: Path, tests: Sequence[str], limit: float) -> str:
    """Run tests in a copy of the repository.

    Returns:
        `survived` where all pass, `killed` where one fails, `timeout` after `limit` seconds.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            return "killed" if process.wait(limit) else "survived"
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def try_mutants(mutants: Sequence[Mutant], root: Path, results: Path) -> list[dict[str, object]]:
    """Try each mutant that has no result yet; append what comes out to `results`.

    Raises:
        SystemExit: the tests fail without any mutation.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    digests = {tests: _digest(root, tests) for tests in {mutant.tests for mutant in mutants}}
    by_key = {(line["key"], line["tests"]): line for line in known}
    limits: dict[tuple[str, ...], float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (root / name).is_file():
                shutil.copy(root / name, folder)
        for number, mutant in enumerate(mutants, 1):
            key = (mutant.key, digests[mutant.tests])
            if key not in by_key:
                if mutant.tests not in limits:
                    limits[mutant.tests] = _limit(folder, mutant.tests)
                original, diff = (folder / mutant.path).read_text(), mutant.diff(folder)
                (folder / mutant.path).write_text(mutant.source)
                begin = time.monotonic()
                outcome = run_tests(folder, mutant.tests, limits[mutant.tests])
                (folder / mutant.path).write_text(original)
                by_key[key] = {
                    "key": mutant.key, "tests": digests[mutant.tests], "path": mutant.path, "line": mutant.line,
                    "outcome": outcome, "seconds": round(time.monotonic() - begin, 1), "diff": diff,
                }  # fmt: skip
                with results.open("a") as file:
                    file.write(json.dumps(by_key[key]) + "\n")
            line = by_key[key]
            _say(f"{number}/{len(mutants)} {line['outcome']:8} {mutant.path}:{mutant.line}")
    return [by_key[mutant.key, digests[mutant.tests]] for mutant in mutants]


def _limit(folder: Path, tests: Sequence[str]) -> float:
    """Three times what the tests take without a mutation, and a minute."""
    begin = time.monotonic()
    if run_tests(folder, tests, 3600) != "survived":
        raise SystemExit(f"the tests fail without a mutation: {' '.join(tests)}")
    return 3 * (time.monotonic() - begin) + 60


def _digest(root: Path, tests: Sequence[str]) -> str:
    """Hash of the test files, so that a survivor is tried again when its tests have changed."""
    digest = hashlib.sha256()
    for name in tests:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Try a sample of mutants and report those that survive; the exit status doesn't depend on them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--sample", type=int, default=60, help="how many mutants; 0 is all (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="files whose path begins so, as mntp/heads")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a further pass goes on from")
    options = parser.parse_args()
    mutants = draw_mutants(options.root, options.sample, options.seed, options.only)
    tried = try_mutants(mutants, options.root, options.results)
    survivors = [line for line in tried if line["outcome"] == "survived"]
    for line in survivors:
        _say(f"\n{line['path']}:{line['line']}\n{line['diff']}")
    _say(f"\n{len(tried) - len(survivors)} of {len(tried)} mutants were noticed, {len(survivors)} survived")


if __name__ == "__main__":
    main()

"""Which modules a trip runs through: those of ours of which a function is called, seen by a profiler.

Three trips, each by the command that users give, at the matrix's `smoke` scale:

    plan    a matrix becomes a plan: `mntp ablate plan`, where store and judge are prepared already
    table   a finished cell becomes a row of a table: `mntp ablate gather`
    score   a trained run gets its score: sampling and scoring, from the final checkpoint to metrics.json
"""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

TRIPS = ("plan", "table", "score")
RUN_MODULES = ("experiments/runs/run.py", "experiments/run.py")  # today's, and that before the rooms
ROWS = "3G"


class Visited:
    """Records the files in a folder of which a function was called; what runs at import doesn't count."""

    def __init__(self, root: Path, packages: tuple[str, ...]) -> None:
        self.files: set[str] = set()
        self._folders = tuple(f"{root / package}{os.sep}" for package in packages)
        self._importing = threading.local()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """As `sys.setprofile` wants it."""
        code = frame.f_code
        if code.co_name == "<module>":
            step = {"call": 1, "return": -1}.get(event, 0)
            self._importing.depth = getattr(self._importing, "depth", 0) + step
            return
        importing = getattr(self._importing, "depth", 0) > 0
        if event == "call" and not importing and code.co_filename.startswith(self._folders):
            self.files.add(code.co_filename)


def visited_modules(root: Path, packages: tuple[str, ...], act: Callable[[], None]) -> list[str]:
    """Paths of the modules, relative to `root`, of which `act` runs a function."""
    visited = Visited(root, packages)
    threading.setprofile(visited)
    sys.setprofile(visited)
    try:
        act()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return sorted(Path(file).relative_to(root).as_posix() for file in visited.files)


def measure_trips(root: Path, folder: Path, packages: tuple[str, ...]) -> dict[str, list[str]]:
    """Train one cell at smoke scale with the code in `root`, then walk the three trips, each in its own process.

    Args:
        root: a checkout.
        folder: where data, runs and results go; what is there already is used.
        packages: the packages whose modules count.

    Returns:
        For each trip the paths of its modules, relative to `root`.

    Raises:
        RuntimeError: a process failed; the message is what it wrote last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _start(root, folder, "prepare", packages)
    return {trip: json.loads(_start(root, folder, trip, packages).splitlines()[-1]) for trip in TRIPS}


def _start(root: Path, folder: Path, trip: str, packages: tuple[str, ...]) -> str:
    """Run this file in a process of its own, so that only the modules of `root` can be imported."""
    words = [sys.executable, __file__, str(root.resolve()), trip, *packages]
    environment = os.environ | {"PYTHONPATH": str(root.resolve())}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{trip} failed in {root}:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def _command(*words: str) -> None:
    """Call `mntp` in this process."""
    sys.argv = ["mntp", *words]
    try:
        importlib.import_module("experiments.main").main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{' '.join(words)} ended with {end.code}") from end


def _score(root: Path) -> None:
    """Score the one trained run anew."""
    (run_dir,) = {path.parent.parent for path in Path("runs").glob("*/checkpoints/final.ckpt")}
    (scoring,) = (path.parent for path in run_dir.glob("evals/*/protocol.json"))
    (scoring / "metrics.json").unlink(missing_ok=True)
    shutil.rmtree(scoring / "wav", ignore_errors=True)
    present = [name for name in RUN_MODULES if (root / name).is_file()]
    if not present:
        raise RuntimeError(f"{root}: none of {', '.join(RUN_MODULES)} exists; add the module's path at that commit")
    module: Any = importlib.import_module(present[0].removesuffix(".py").replace("/", "."))
    module.run(run_dir, scoring.name)
    assert (scoring / "metrics.json").is_file()


def _check_origin(root: Path, packages: tuple[str, ...]) -> None:
    """An installed copy of the suite must not stand in for what this checkout lacks."""
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name.partition(".")[0] in packages and path and not Path(path).is_relative_to(root):
            raise RuntimeError(f"{name} was imported from {path} instead of {root}")


def main() -> None:
    """Walk one trip in this process and print its modules as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("trip", choices=("prepare", *TRIPS))
    parser.add_argument("packages", nargs="+")
    options = parser.parse_args()
    sys.path[0] = str(options.root)
    asked = ["--scale", "smoke", "--rows", ROWS]
    matrix = ["--matrix", str(options.root / "ablations.yaml")]
    acts: dict[str, Callable[[], None]] = {
        "prepare": lambda: _command("ablate", "run", *matrix, *asked),
        "plan": lambda: _command("ablate", "plan", *matrix, *asked),
        "table": lambda: _command("ablate", "gather", "--scale", "smoke"),
        "score": lambda: _score(options.root),
    }
    packages = tuple(options.packages)
    if options.trip == "prepare":
        acts["prepare"]()
    else:
        visited = visited_modules(options.root, packages, acts[options.trip])
        sys.stdout.write(f"\n{json.dumps(visited)}\n")
    _check_origin(options.root, packages)


if __name__ == "__main__":
    main()

"""What a run's folder says of the run itself: `run.json`, failures, and the lock that one process at a time holds."""

import contextlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.runs.launch import global_rank
from mntp.io.json_lines import read_json, write_json
from mntp.io.locks import claimed

EXIT_HELD = 3
LOCK_SECONDS = 0.25  # longer than an onlooker holds it to test it
HELD_OUT = "held_out.safetensors"
RECORDED_PACKAGES = ("torch", "lightning", "numpy", "safetensors", "torchaudio", "transformers", "diffusers")


class RunRecord:
    """`run.json`: how far a run is, and what its phases took. Read once, and written once at the end of a phase.

    Args:
        run_dir: the run's folder.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "run.json"
        self._content = read_json(self._path)

    def write(self, **values: Any) -> None:
        """Change entries, and write the file if any has changed; of several ranks the first one does."""
        changed = {**self._content, **values}
        if changed != self._content and global_rank() == 0:
            write_json(self._path, changed)
        self._content = changed


def final_checkpoint(run_dir: Path) -> Path:
    """Return the file whose presence means that the run is trained."""
    return run_dir / "checkpoints" / "final.ckpt"


def is_trained(run_dir: Path) -> bool:
    """Return whether only sampling and scoring are left, for which one device is enough."""
    return final_checkpoint(run_dir).is_file() and (run_dir / HELD_OUT).is_file()


def read_protocol(run_dir: Path, name: str) -> dict[str, Any]:
    """Return the protocol of one of a run's scorings.

    Raises:
        ValueError: there is none.
    """
    protocol = read_json(run_dir / "evals" / name / "protocol.json")
    if not protocol:
        raise ValueError(f"{run_dir}: no evals/{name}/protocol.json; `mntp ablate run` writes it")
    return protocol


def write_failure(scoring: Path, reason: str, **more: Any) -> None:
    """Say in a scoring's folder why it failed; the next attempt removes the file.

    Args:
        scoring: the scoring's folder.
        reason: in words, for the user.
        more: further entries.
    """
    write_json(scoring / "failure.json", {"reason": reason, "time": time.time(), **more})


def provenance() -> dict[str, Any]:
    """Commit, uncommitted changes, versions and host of this process."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
        },
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


def _git(*words: str) -> str | None:
    """Output of git in the suite's own checkout; None outside of one."""
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@contextlib.contextmanager
def held(run_dir: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the run's lock (see `mntp.io.locks`). Of several ranks the first one holds it.

    Exits with code 3 and one line if another process still holds it after `patience` seconds.
    """
    if global_rank():
        yield
        return
    path = run_dir / "lock"
    with claimed(path, max(patience, LOCK_SECONDS)) as mine:
        if not mine:
            holder = path.read_text(encoding="utf-8").strip()
            print(f"{run_dir}: held by {holder or 'another process'}", file=sys.stderr)  # noqa: T201
            sys.exit(EXIT_HELD)
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield

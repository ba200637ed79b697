"""What a run's folder says of the run itself: `run.json`, and the lock that one process at a time holds."""

import contextlib
import fcntl
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from experiments.runs.launch import global_rank
from mntp.io.json_lines import read_json, write_json

EXIT_HELD = 3
LOCK_SECONDS, LOCK_PAUSE_SECONDS = 0.25, 0.05
HELD_OUT = "held_out.safetensors"
RECORDED_PACKAGES = ("torch", "lightning", "numpy", "safetensors", "torchaudio", "transformers", "diffusers")


def final_checkpoint(run_dir: Path) -> Path:
    """Return the file whose presence means that the run is trained."""
    return run_dir / "checkpoints" / "final.ckpt"


def is_trained(run_dir: Path) -> bool:
    """Return whether only sampling and scoring are left, for which one device is enough."""
    return final_checkpoint(run_dir).is_file() and (run_dir / HELD_OUT).is_file()


def update_record(run_dir: Path, **values: Any) -> None:
    """Change entries of `run.json`; of several ranks the first one does."""
    if global_rank() == 0:
        write_json(run_dir / "run.json", {**read_json(run_dir / "run.json"), **values})


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


def _lock(file: TextIO, patience: float) -> bool:
    """Take the lock, giving an onlooker that is just testing it a moment to let go."""
    give_up = time.monotonic() + max(patience, LOCK_SECONDS)
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > give_up:
            return False
        time.sleep(LOCK_PAUSE_SECONDS)


@contextlib.contextmanager
def held(run_dir: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the run's lock; the system takes it back from a killed process. Of several ranks the first one holds it.

    Exits with code 3 and one line if another process still holds it after `patience` seconds.
    """
    if global_rank():
        yield
        return
    with (run_dir / "lock").open("a+") as file:
        if not _lock(file, patience):
            file.seek(0)
            print(f"{run_dir}: held by {file.read().strip() or 'another process'}", file=sys.stderr)  # noqa: T201
            sys.exit(EXIT_HELD)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield

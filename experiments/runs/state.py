"""What state a cell is in, read from its run folder's files only: no log is parsed and no scheduler is queried."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.runs.record import final_checkpoint
from mntp.io.json_lines import read_json
from mntp.io.locks import is_claimed

DONE, RUNNING, FAILED, INTERRUPTED, NOT_RUN = "done", "running", "failed", "interrupted", "not run"
QUEUED, CANCELLED = "queued", "cancelled"  # only a scheduler knows these: see `queued`
STYLES = {
    DONE: "green",
    RUNNING: "cyan",
    FAILED: "bold red",
    INTERRUPTED: "yellow",
    NOT_RUN: "dim",
    QUEUED: "blue",
    CANCELLED: "yellow",
}
# Where its lock can't be tested, a run that wrote its progress this recently counts as alive; it writes each second.
FRESH_SECONDS = 15.0


@dataclass(frozen=True)
class CellState:
    """The state of one scoring of one run.

    Attributes:
        state: done, running, failed, interrupted (it was started, it isn't alive, it will continue) or not run.
        reason: why it isn't done, in a line; empty for a finished one.
        progress: content of `progress.json`, if any: phase, step, max_steps, loss, time.
        metrics: content of `metrics.json`, if done.
        run: content of `run.json`, if any.
        timings: content of `score.json`, if any.
    """

    state: str
    reason: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)


def eval_folder(run_dir: Path, protocol_hash: str) -> Path:
    """Return the folder of one scoring of a run."""
    return run_dir / "evals" / protocol_hash


def read_state(run_dir: Path, protocol_hash: str) -> CellState:
    """Return the state of one scoring of a run. An unreadable file is that cell's failure, not the caller's."""
    scoring = eval_folder(run_dir, protocol_hash)
    try:
        metrics, failure = read_json(scoring / "metrics.json"), read_json(scoring / "failure.json")
        progress, run = read_json(run_dir / "progress.json"), read_json(run_dir / "run.json")
        timings = read_json(scoring / "score.json")
    except ValueError as error:
        return CellState(FAILED, str(error))
    if metrics:
        return CellState(DONE, "", progress, metrics, run, timings)
    # A run folder can have several scorings; the progress says which one its process is at, if it says so.
    mine = protocol_hash in progress.get("protocol", protocol_hash).split(",")
    if mine and is_running(run_dir, progress):
        return CellState(RUNNING, _place(progress), progress, {}, run)
    return CellState(*_unfinished(scoring, failure, progress, run), progress, {}, run)


def _unfinished(
    scoring: Path, failure: dict[str, Any], progress: dict[str, Any], run: dict[str, Any]
) -> tuple[str, str]:
    """State and reason of a scoring that is neither done nor at work."""
    if failure or (scoring.is_dir() and run.get("state") == "failed"):  # one scoring's error isn't another's
        return FAILED, str(failure.get("reason") or run.get("error") or "no reason was recorded")
    if scoring.is_dir() and (run or progress):
        return INTERRUPTED, f"{_place(progress)}; continues when run again"
    return NOT_RUN, ""


def read_progress(run_dir: Path) -> dict[str, Any]:
    """Return how far a run is, {} where nothing is known of it."""
    with contextlib.suppress(ValueError):
        return read_json(run_dir / "progress.json")
    return {}


def untrained_needs(needs: Mapping[str, str | Path]) -> str:
    """Return which of the needed runs, given by label and folder, aren't trained, in a line; empty if all are."""
    missing = [label for label, run_dir in needs.items() if not final_checkpoint(Path(run_dir)).is_file()]
    return f"needs {', '.join(missing)}, which has no final checkpoint" if missing else ""


def is_running(run_dir: Path, progress: dict[str, Any]) -> bool:
    """Return whether a process holds the run: by its lock, or by fresh progress where locks don't work."""
    try:
        return is_claimed(run_dir / "lock")
    except OSError:  # the file belongs to someone else, or the file system has no locks
        return time.time() - float(progress.get("time", 0.0)) < FRESH_SECONDS


def phase_seconds(state: CellState) -> tuple[float | None, float | None, float | None]:
    """Return how long training, sampling and scoring took, in seconds; None where it isn't known."""
    return (
        state.run.get("train_seconds"),
        state.timings.get("sample_seconds"),
        state.timings.get("score_seconds"),
    )


def seconds(value: float | None) -> str:
    """Return a duration to read: `7 s`, `1:05`, `2:03:04`; empty for None."""
    if value is None:
        return ""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _place(progress: dict[str, Any]) -> str:
    if "step" not in progress:
        return "starting" if not progress else str(progress.get("phase", "starting"))
    return f"{progress.get('phase', 'training')} {progress['step']}/{progress.get('max_steps', '?')}"

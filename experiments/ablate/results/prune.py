"""Free the disk space of finished runs: remove the checkpoints that only a resumed training needs."""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import PlannedCell
from experiments.runs.record import final_checkpoint, held
from experiments.runs.state import DONE, is_running

# What `LastCheckpoint` writes, and what a process left that was killed while it wrote.
PATTERNS = ("last.ckpt", ".last.ckpt.*.tmp", ".final.ckpt.*.tmp")


@dataclass(frozen=True)
class Pruned:
    """What was, or would be, removed of one run.

    Attributes:
        run_dir: the run's folder.
        files: removed files.
        num_bytes: their size.
    """

    run_dir: Path
    files: tuple[Path, ...]
    num_bytes: int


def prune(cells: Sequence[PlannedCell], dry_run: bool = False) -> tuple[list[Pruned], dict[Path, str]]:
    """Remove weights with optimiser states of runs whose selected cells are all done.

    `final.ckpt`, the averaged weights that every score rests on, stays; so does everything else.

    Args:
        cells: of a plan.
        dry_run: only look.

    Returns:
        What was removed, and why other runs that have something to remove were left alone.
    """
    removed: list[Pruned] = []
    kept: dict[Path, str] = {}
    for run_dir, answered in _by_run(cells).items():
        files = _files(run_dir)
        if not files:
            continue
        if reason := _reason_to_keep(run_dir, answered):
            kept[run_dir] = reason
            continue
        removed.append(Pruned(run_dir, files, sum(file.stat().st_size for file in files)))
        if not dry_run:
            _remove(run_dir, files)
    return removed, kept


def _reason_to_keep(run_dir: Path, answered: Sequence[PlannedCell]) -> str:
    """Why the checkpoints of a run stay; empty if they may go."""
    states = {cell.label: cell_state(cell).state for cell in answered}
    if unfinished := [cell.label for cell in answered if cell.selected and states[cell.label] != DONE]:
        return f"{', '.join(unfinished)} isn't done"
    if DONE not in states.values():
        return "it isn't scored"
    if is_running(run_dir, {}):
        return "a process holds it"
    return "" if zipfile.is_zipfile(final_checkpoint(run_dir)) else "it has no whole final checkpoint"


def _remove(run_dir: Path, files: Iterable[Path]) -> None:
    with held(run_dir):  # nobody is just about to go on from them
        for file in files:
            file.unlink(missing_ok=True)


def _files(run_dir: Path) -> tuple[Path, ...]:
    folder = run_dir / "checkpoints"
    return tuple(sorted(file for pattern in PATTERNS for file in folder.glob(pattern)))


def _by_run(cells: Iterable[PlannedCell]) -> dict[Path, list[PlannedCell]]:
    runs: dict[Path, list[PlannedCell]] = {}
    for cell in cells:
        if cell.run_dir:
            runs.setdefault(Path(cell.run_dir), []).append(cell)
    return runs

"""Giving back the disk space of what is finished: checkpoints that only a training that goes on would need."""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import PlannedCell
from experiments.runs.record import final_checkpoint, held
from experiments.runs.state import DONE, is_running

# What `LastCheckpoint` writes, and what a process that was killed while it wrote has left.
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
        states = {cell.label: cell_state(cell).state for cell in answered}
        if unfinished := [cell.label for cell in answered if cell.selected and states[cell.label] != DONE]:
            kept[run_dir] = f"{', '.join(unfinished)} isn't done"
        elif DONE not in states.values():
            kept[run_dir] = "it isn't scored"
        elif is_running(run_dir, {}):
            kept[run_dir] = "a process holds it"
        elif not zipfile.is_zipfile(final_checkpoint(run_dir)):
            kept[run_dir] = "it has no whole final checkpoint"
        else:
            removed.append(Pruned(run_dir, files, sum(file.stat().st_size for file in files)))
            if not dry_run:
                _remove(run_dir, files)
    return removed, kept


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

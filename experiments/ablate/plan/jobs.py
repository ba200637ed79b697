"""From a matrix file to a written plan and its jobs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.ablate.matrix.expand import expand
from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.matrix.schedules import schedules_of
from experiments.ablate.matrix.select import select_rows
from experiments.ablate.plan.build import build_plan
from experiments.ablate.plan.earlier import with_earlier
from experiments.ablate.plan.job import Job
from experiments.ablate.plan.plan_file import Plan, results_folder, write_plan


def plan_jobs(
    matrix: Path, scale: str, rows: str, seeds: str, out: Path, runs: Path, judges: Path, weights: Path
) -> tuple[Plan, list[Job]]:
    """Check every cell, prepare what they share, write `plan.json`; return the plan and the selected jobs."""
    loaded = load_matrix(matrix)
    selected = select_rows(loaded, rows)
    cells = expand(loaded, scale, parse_seeds(seeds), {table for table, _ in selected})
    # Resolving a config needs the classes, and with them torch: seconds that status and gather shouldn't take.
    from experiments.config.resolve import resolve
    from experiments.runs.data import prepare

    kind = loaded.scales[scale].evaluation.judge

    def prepared(config: dict[str, Any]) -> dict[str, str]:
        return prepare(config, judges, kind, weights)

    folder = results_folder(out, scale)
    planned, jobs = build_plan(loaded, cells, selected, runs, resolve, prepared)
    planned = with_earlier(replace(planned, schedules=schedules_of(loaded)), folder)
    write_plan(planned, folder)
    return planned, jobs


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of `0,1,2`.

    Raises:
        ValueError: not whole numbers from 0 up, or one twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words) or len(set(map(int, words))) != len(words):
        raise ValueError(f"seeds: expected distinct whole numbers from 0 up, as in 0,1,2, got {text!r}")
    return [int(word) for word in words]

"""From a matrix file to a written plan and its jobs."""

from dataclasses import replace
from typing import Any

from experiments.ablate.matrix.expand import expand
from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.matrix.schedules import schedules_of
from experiments.ablate.matrix.select import select_rows
from experiments.ablate.plan.build import build_plan
from experiments.ablate.plan.earlier import with_earlier
from experiments.ablate.plan.inputs import Inputs
from experiments.ablate.plan.job import Job
from experiments.ablate.plan.options import PlanOptions
from experiments.ablate.plan.plan_file import Plan, write_plan
from experiments.scoring.metrics import HELD_OUT


def plan_jobs(options: PlanOptions, look_only: bool = False) -> tuple[Plan, list[Job], list[str]]:
    """Check every cell, prepare what they share, and write `plan.json`.

    Args:
        options: what is planned.
        look_only: go on where data or weights are missing. The runs then have provisional names, and the plan is not
            written.

    Returns:
        The plan, the selected jobs, and what is missing (nothing unless `look_only`).

    Raises:
        ValueError: the matrix or a config is refused, or data or weights are missing.
    """
    matrix = load_matrix(options.matrix)
    selected = select_rows(matrix, options.rows)
    cells = expand(matrix, options.scale, parse_seeds(options.seeds), {table for table, _ in selected})
    # Resolving a config needs the classes, and with them torch: seconds that status and gather shouldn't take.
    from experiments.config.resolve import resolve
    from experiments.runs.data import prepare_data, score_set_of

    kind = matrix.scales[options.scale].evaluation.judge

    def judge(config: dict[str, Any]) -> str:
        return "" if kind == HELD_OUT else score_set_of(config, kind, options).fingerprint()

    inputs = Inputs(prepare_data, judge, strict=not look_only)
    plan, jobs = build_plan(matrix, cells, selected, options.runs, resolve, inputs)
    plan = with_earlier(replace(plan, schedules=schedules_of(matrix)), options.folder)
    if not inputs.missing:
        write_plan(plan, options.folder)
    return plan, jobs, inputs.missing


def show_missing(missing: list[str]) -> list[str]:
    """Return the lines that say what a plan lacks; none where it lacks nothing."""
    if not missing:
        return []
    return [
        *(f"not there yet: {what}" for what in missing),
        "until then the runs' names are provisional; nothing is written",
    ]


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of `0,1,2`.

    Raises:
        ValueError: not whole numbers from 0 up, or one twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words) or len(set(map(int, words))) != len(words):
        raise ValueError(f"seeds: expected distinct whole numbers from 0 up, as in 0,1,2, got {text!r}")
    return [int(word) for word in words]

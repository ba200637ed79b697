"""`mntp ablate plan|run|status|gather|report`: thin commands over the modules beside this one.

Each returns its exit code. Only `plan` and `run` import torch, and only when they are called.
"""

from collections.abc import Callable
from pathlib import Path

from experiments.ablate.local.execute import console, execute
from experiments.ablate.local.runner import run_command
from experiments.ablate.plan.jobs import plan_jobs, show_missing
from experiments.ablate.plan.options import PlanOptions, ResultsOptions
from experiments.ablate.plan.plan_file import read_plan
from experiments.ablate.show.plan_table import left_out, plan_view
from experiments.ablate.show.status_table import status_table
from experiments.ablate.slurm.state import Queue


def plan(options: PlanOptions, cost: bool = False, cap_hours: float | None = None) -> int:
    """Check every cell, name its run, and show what is done, cached, missing or stale; writes `plan.json`.

    Where data or weights are not there yet, the plan is shown with provisional names of runs, and not written.

    Args:
        options: what is planned.
        cost: predict hours from finished runs of the same shape, or from a few steps that are run and timed now.
        cap_hours: warn where more hours are predicted; asks for the cost.
    """
    planned, jobs, missing = plan_jobs(options, look_only=True)
    shown = console()
    table, states = plan_view(planned)
    shown.print(table)
    lines = left_out(planned)
    lines.append(f"{len(jobs)} scorings of {len({job.run_dir for job in jobs})} runs, {states}")
    lines += show_missing(missing)
    if (cost or cap_hours is not None) and not missing:
        from experiments.ablate.plan.cost import predict_cost
        from experiments.ablate.plan.measure_steps import measure_steps  # torch

        lines += predict_cost(jobs, measure_steps).lines(cap_hours)
    for line in lines:
        shown.print(line, highlight=False, markup=False)
    return 0


def run(options: PlanOptions, parallel: int = 1) -> int:
    """Train, sample and score what isn't done yet, then write and show the tables. Ask twice and it runs once.

    Args:
        options: what is planned.
        parallel: cells at a time, each with GPUs of its own.
    """
    _, jobs, _ = plan_jobs(options)
    code = execute(jobs, run_command(options), options.folder, console(), parallel)
    return report(options) or code if code in (0, 1) else code


def status(options: ResultsOptions) -> int:
    """Show every planned cell with its state, its progress, what its phases took, and its job if it was submitted.

    Args:
        options: where the results lie.
    """
    planned = read_plan(options.folder)
    queue = Queue.of((Path(cell.run_dir) for cell in planned.cells if cell.run_dir), strict=False)
    console().print(status_table(planned, queue))
    return 0


def gather(options: ResultsOptions) -> int:
    """Write `results.csv` and the tables from what the run folders say, and show the tables.

    Args:
        options: where the results lie.
    """
    from experiments.ablate.results.gather import show_tables  # pandas: status needs it no more than torch

    show_tables(options.folder, console())
    return 0


def report(options: ResultsOptions, prompts: int = 4, max_mb: float = 20.0) -> int:
    """Write `report.html`: tables, figures, curves, sounds, differences, failures and provenance in one offline file.

    Args:
        options: where the results lie.
        prompts: test clips that can be played, the same in every cell.
        max_mb: what sounds and their spectrograms may take up; fewer prompts are shown where they would take more.
    """
    from experiments.ablate.report.html import write_report  # matplotlib and jinja2: status needs neither

    path = write_report(options.folder, prompts, max_mb)
    console().print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"plan": plan, "run": run, "status": status, "gather": gather}

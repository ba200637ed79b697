"""`mntp ablate plan|run|status|gather|report`: thin commands over the modules beside this one.

Each returns its exit code. Only `plan` and `run` import torch, and only when they are called.
"""

from collections.abc import Callable
from pathlib import Path

from experiments.ablate.local.execute import console, execute
from experiments.ablate.local.runner import run_command
from experiments.ablate.matrix.schema import DEFAULT_SCALE
from experiments.ablate.plan.jobs import plan_jobs
from experiments.ablate.plan.plan_file import read_plan, results_folder
from experiments.ablate.show.plan_table import left_out, plan_view
from experiments.ablate.show.status_table import status_table
from experiments.ablate.slurm.state import Queue


def plan(
    matrix: Path = Path("ablations.yaml"),
    scale: str = DEFAULT_SCALE,
    rows: str = "",
    seeds: str = "0",
    out: Path = Path("results"),
    runs: Path = Path("runs"),
    judges: Path = Path("data/judges"),
    weights: Path = Path("weights"),
    cost: bool = False,
    cap_hours: float | None = None,
) -> int:
    """Check every cell, name its run, and show what is done, cached, missing or stale; writes `plan.json`.

    Args:
        matrix: the matrix file.
        scale: one of its scales.
        rows: which rows: nothing for the default ones, `all`, or rows and tables as in `3A,8B,table6,factorial`.
        seeds: seeds, as in `0,1,2`.
        out: folder of the results; a scale other than micro has its own folder beneath it.
        runs: folder of the runs.
        judges: folder where the judge network is kept, and what the judges heard.
        weights: folder of public checkpoints, for scales that are judged by them.
        cost: predict hours from finished runs of the same shape, or from a few steps that are run and timed now.
        cap_hours: warn where more hours are predicted; asks for the cost.
    """
    planned, jobs = plan_jobs(matrix, scale, rows, seeds, out, runs, judges, weights)
    shown = console()
    table, states = plan_view(planned)
    shown.print(table)
    lines = left_out(planned)
    lines.append(f"{len(jobs)} scorings of {len({job.run_dir for job in jobs})} runs, {states}")
    if cost or cap_hours is not None:
        from experiments.ablate.plan.cost import predict_cost
        from experiments.ablate.plan.measure_steps import measure_steps  # torch

        lines += predict_cost(jobs, measure_steps).lines(cap_hours)
    for line in lines:
        shown.print(line, highlight=False, markup=False)
    return 0


def run(
    matrix: Path = Path("ablations.yaml"),
    scale: str = DEFAULT_SCALE,
    rows: str = "",
    seeds: str = "0",
    out: Path = Path("results"),
    runs: Path = Path("runs"),
    judges: Path = Path("data/judges"),
    weights: Path = Path("weights"),
    parallel: int = 1,
) -> int:
    """Train, sample and score what isn't done yet, then write and show the tables. Ask twice and it runs once.

    Args:
        matrix: the matrix file.
        scale: one of its scales.
        rows: which rows: nothing for the default ones, `all`, or rows and tables as in `3A,8B,table6,factorial`.
        seeds: seeds, as in `0,1,2`.
        out: folder of the results; a scale other than micro has its own folder beneath it.
        runs: folder of the runs.
        judges: folder where the judge network is kept, and what the judges heard.
        weights: folder of public checkpoints, for scales that are judged by them.
        parallel: cells at a time, each with GPUs of its own.
    """
    _, jobs = plan_jobs(matrix, scale, rows, seeds, out, runs, judges, weights)
    code = execute(jobs, run_command(judges, weights), results_folder(out, scale), console(), parallel)
    return report(out, scale) or code if code in (0, 1) else code


def status(out: Path = Path("results"), scale: str = DEFAULT_SCALE) -> int:
    """Show every planned cell with its state, its progress, what its phases took, and its job if it was submitted.

    Args:
        out: folder of the results.
        scale: the scale that was planned.
    """
    planned = read_plan(results_folder(out, scale))
    queue = Queue.of((Path(cell.run_dir) for cell in planned.cells if cell.run_dir), strict=False)
    console().print(status_table(planned, queue))
    return 0


def gather(out: Path = Path("results"), scale: str = DEFAULT_SCALE) -> int:
    """Write `results.csv` and the tables from what the run folders say, and show the tables.

    Args:
        out: folder of the results.
        scale: the scale that was planned.
    """
    from experiments.ablate.results.gather import show_tables  # pandas: status needs it no more than torch

    show_tables(results_folder(out, scale), console())
    return 0


def report(out: Path = Path("results"), scale: str = DEFAULT_SCALE, prompts: int = 4, max_mb: float = 20.0) -> int:
    """Write `report.html`: tables, figures, curves, sounds, differences, failures and provenance in one offline file.

    Args:
        out: folder of the results.
        scale: the scale that was planned.
        prompts: test clips that can be heard, the same in every cell.
        max_mb: what sounds and their spectrograms may weigh; fewer prompts are shown where they would weigh more.
    """
    from experiments.ablate.report.html import write_report  # matplotlib and jinja2: status needs neither

    path = write_report(results_folder(out, scale), prompts, max_mb)
    console().print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"plan": plan, "run": run, "status": status, "gather": gather}

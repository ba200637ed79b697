"""`mntp ablate plan|run|status|gather|report`: thin commands over the modules beside this one.

Each returns its exit code. Only `plan` and `run` import torch, and only when they are called.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from experiments.ablate.expansion import expand
from experiments.ablate.gather import gather_results
from experiments.ablate.local import InterruptedRunError, run_command, run_jobs
from experiments.ablate.matrix import load_matrix
from experiments.ablate.outlook import left_out, plan_view
from experiments.ablate.plan import Job, build_plan
from experiments.ablate.planned import DEFAULT_SCALE, Plan, read_plan, results_folder, write_plan
from experiments.ablate.queued import Queue
from experiments.ablate.selection import select_rows
from experiments.ablate.stale import with_earlier
from experiments.ablate.status import DONE, INTERRUPTED, STYLES
from experiments.ablate.status_table import status_table
from experiments.ablate.tables import table_rich


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
        from experiments.ablate.cost import predict_cost
        from experiments.step_time import measure_steps  # torch

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
    from experiments.ablate.report import write_report  # matplotlib and jinja2: status needs neither

    path = write_report(results_folder(out, scale), prompts, max_mb)
    console().print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
    return 0


PIPE_WIDTH = 160
COMMANDS: dict[str, Callable[..., int]] = {"plan": plan, "run": run, "status": status, "gather": gather}


def execute(
    jobs: list[Job], command: Callable[[Job], list[str]], folder: Path, console: Console, parallel: int = 1
) -> int:
    """Run the jobs, gather, show the tables and say what failed.

    Args:
        jobs: in the order to run.
        command: gives a job's command line.
        folder: where `plan.json` lies and the tables go.
        console: where all is shown.
        parallel: jobs at a time.

    Returns:
        0 if every job is done, 1 if one isn't, 130 or 143 if the runner was interrupted.
    """
    try:
        views = run_jobs(jobs, command, console, parallel=parallel)
    except InterruptedRunError as stop:
        gather_results(folder)
        console.print(str(stop), highlight=False)
        for view in stop.views:
            if view.elapsed is not None and view.state == INTERRUPTED:
                place = f"at {view.place}" if view.place else "before its first step"
                console.print(f"{view.label} was interrupted {place}; it goes on from its newest checkpoint")
        console.print("run the same command again to go on", highlight=False)
        return stop.exit_code
    show_tables(folder, console)
    missing = [view for view in views if view.state != DONE]
    for view in missing:
        console.print(Text(f"{view.label} {view.state} ({view.job.run_dir})", style=STYLES[view.state]))
        console.print(Text(view.note))
    return 1 if missing else 0


def plan_jobs(
    matrix: Path, scale: str, rows: str, seeds: str, out: Path, runs: Path, judges: Path, weights: Path
) -> tuple[Plan, list[Job]]:
    """Check every cell, prepare what they share, write `plan.json`; return the plan and the selected jobs."""
    loaded = load_matrix(matrix)
    selected = select_rows(loaded, rows)
    cells = expand(loaded, scale, parse_seeds(seeds), {table for table, _ in selected})
    # Resolving a config needs the classes, and with them torch: seconds that status and gather shouldn't take.
    from experiments.cli import resolve
    from experiments.shared import prepare

    kind = loaded.scales[scale].evaluation.judge

    def prepared(config: dict[str, Any]) -> dict[str, str]:
        return prepare(config, judges, kind, weights)

    from experiments.laws import law_curves

    folder = results_folder(out, scale)
    planned, jobs = build_plan(loaded, cells, selected, runs, resolve, prepared)
    planned = with_earlier(replace(planned, laws=law_curves(loaded)), folder)
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


def show_tables(folder: Path, console: Console) -> None:
    planned = read_plan(folder)
    tables = gather_results(folder)
    for name, results in tables.items():
        console.print(table_rich(results, planned.tables[name], planned.judge))
    console.print(f"written: {folder}/results.csv, " + ", ".join(f"{name}.csv|md|tex" for name in tables))


def console() -> Console:
    """Return the terminal, or lines of a fixed width that tables fit into where there is none (a log, a pipe)."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=PIPE_WIDTH)

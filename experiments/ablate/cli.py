"""`mntp ablate plan|run|status|gather`: thin commands over the modules beside this one.

Each returns its exit code. Only `plan` and `run` import torch, and only when they are called.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.ablate.expansion import expand
from experiments.ablate.gather import gather_results
from experiments.ablate.local import InterruptedRunError, run_command, run_jobs
from experiments.ablate.matrix import load_matrix
from experiments.ablate.plan import Job, build_plan
from experiments.ablate.planned import DEFAULT_SCALE, Plan, read_plan, results_folder, write_plan
from experiments.ablate.queued import Queue
from experiments.ablate.selection import select_rows
from experiments.ablate.status import DONE, INTERRUPTED, STYLES, cell_state
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
) -> int:
    """Check every cell, name its run, and show what is done and what would run; writes `plan.json`.

    Args:
        matrix: the matrix file.
        scale: one of its scales (smoke, micro).
        rows: which rows: nothing for the default ones, `all`, or rows and tables as in `3A,8B,table6,factorial`.
        seeds: seeds, as in `0,1,2`.
        out: folder of the results; a scale other than micro has its own folder beneath it.
        runs: folder of the runs.
        judges: folder where the judge network is kept, and what the judges heard.
        weights: folder of public checkpoints, for scales that are judged by them.
    """
    planned, jobs = plan_jobs(matrix, scale, rows, seeds, out, runs, judges, weights)
    shown = console()
    shown.print(plan_table(planned))
    done = sum(cell_state(cell).state == DONE for cell in planned.cells if cell.selected and not cell.same_as)
    shown.print(f"{len(jobs)} scorings of {len({job.run_dir for job in jobs})} runs, {done} done", highlight=False)
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
        scale: one of its scales (smoke, micro).
        rows: which rows: nothing for the default ones, `all`, or rows and tables as in `3A,8B,table6,factorial`.
        seeds: seeds, as in `0,1,2`.
        out: folder of the results; a scale other than micro has its own folder beneath it.
        runs: folder of the runs.
        judges: folder where the judge network is kept, and what the judges heard.
        weights: folder of public checkpoints, for scales that are judged by them.
        parallel: cells at a time, each with GPUs of its own.
    """
    _, jobs = plan_jobs(matrix, scale, rows, seeds, out, runs, judges, weights)
    return execute(jobs, run_command(judges, weights), results_folder(out, scale), console(), parallel)


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
    _show_tables(results_folder(out, scale), console())
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
    _show_tables(folder, console)
    missing = [view for view in views if view.state != DONE]
    for view in missing:
        console.print(Text(f"{view.label} {view.state} ({view.job.run_dir})", style=STYLES[view.state]))
        console.print(Text(view.note))
    return 1 if missing else 0


def plan_table(planned: Plan) -> Table:
    """Return the table that `mntp ablate plan` prints."""
    table = Table(title=f"{planned.matrix}, scale {planned.scale}", title_justify="left")
    for name in ("cell", "system", "differs from the base config", "state", "run", "about"):
        table.add_column(name, overflow="fold")
    for cell in planned.cells:
        state = cell_state(cell)
        differences = "\n".join(f"{key} = {_brief(value)}" for key, value in cell.differences.items())
        about = state.reason if state.state != DONE else ""
        about = f"same run as {cell.same_as}" if cell.same_as else about
        style = STYLES[state.state]
        run_name = Path(cell.run_dir).name if cell.run_dir else ""
        cells = (cell.label, cell.system, differences)
        table.add_row(*map(Text, cells), Text(state.state, style=style), Text(run_name), Text(about))
    return table


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

    planned, jobs = build_plan(loaded, cells, selected, runs, resolve, prepared)
    write_plan(planned, results_folder(out, scale))
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


def _show_tables(folder: Path, console: Console) -> None:
    planned = read_plan(folder)
    tables = gather_results(folder)
    for name, results in tables.items():
        console.print(table_rich(results, planned.tables[name], planned.judge))
    console.print(f"written: {folder}/results.csv, " + ", ".join(f"{name}.csv, {name}.md" for name in tables))


def console() -> Console:
    """Return the terminal, or lines of a fixed width that tables fit into where there is none (a log, a pipe)."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=PIPE_WIDTH)


def _brief(value: Any) -> str:
    """One line for a value: a class with its arguments as `Uniform(low=0, high=1)`."""
    if isinstance(value, dict) and "class_path" in value:
        arguments = ", ".join(f"{key}={_brief(item)}" for key, item in value.get("init_args", {}).items())
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]"
    return str(value)

"""Run jobs on this machine, then gather and show the tables."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from experiments.ablate.local.runner import InterruptedRunError, run_jobs
from experiments.ablate.plan.job import Job
from experiments.runs.state import DONE, INTERRUPTED, STYLES

PIPE_WIDTH = 160


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
    from experiments.ablate.results.gather import gather_results, show_tables  # pandas, which `status` doesn't need

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


def console() -> Console:
    """Return the terminal, or lines of a fixed width that tables fit into where there is none (a log, a pipe)."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=PIPE_WIDTH)

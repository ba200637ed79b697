"""`mntp ablate submit|retry|prune`: what a cluster asks for, over the modules beside this one.

Each returns its exit code. Only `submit` imports torch, and only to plan.
"""

from pathlib import Path

import yaml
from rich.console import Console

from experiments.ablate.local.execute import console, execute
from experiments.ablate.local.runner import run_command, write_run_files
from experiments.ablate.matrix.schema import DEFAULT_SCALE
from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.job import Job
from experiments.ablate.plan.jobs import plan_jobs
from experiments.ablate.plan.plan_file import Plan, PlannedCell, read_plan, results_folder
from experiments.ablate.results.prune import prune as prune_runs
from experiments.ablate.show.status_table import cell_states
from experiments.ablate.slurm.cluster import load_cluster
from experiments.ablate.slurm.state import Queue
from experiments.ablate.slurm.submit import Submission
from experiments.ablate.slurm.submit import submit as submit_cells
from experiments.runs.state import CANCELLED, DONE, FAILED, INTERRUPTED, NOT_RUN, untrained_needs

ENDED = (FAILED, CANCELLED, INTERRUPTED)


def submit(
    cluster: str,
    matrix: Path = Path("ablations.yaml"),
    scale: str = DEFAULT_SCALE,
    rows: str = "",
    seeds: str = "0",
    out: Path = Path("results"),
    runs: Path = Path("runs"),
    judges: Path = Path("data/judges"),
    weights: Path = Path("weights"),
    dry_run: bool = False,
) -> int:
    """Give what isn't done and isn't queued to SLURM, an array of jobs for each resource shape.

    Args:
        cluster: a file of experiments/clusters by name, or any file.
        matrix: the matrix file.
        scale: one of its scales.
        rows: which rows: nothing for the default ones, `all`, or rows and tables as in `3A,8B,table6,factorial`.
        seeds: seeds, as in `0,1,2`.
        out: folder of the results; a scale other than micro has its own folder beneath it.
        runs: folder of the runs, which all nodes see.
        judges: folder where the judge network is kept, and what the judges heard.
        weights: folder of public checkpoints, for scales that are judged by them.
        dry_run: print the scripts and submit nothing.
    """
    described = load_cluster(cluster)  # before the slow plan
    planned, jobs = plan_jobs(matrix, scale, rows, seeds, out, runs, judges, weights)
    for job in jobs:
        write_run_files(job)
    cells = [cell for cell in planned.cells if cell.selected and cell_state(cell).state != DONE]
    return _show(submit_cells(cells, results_folder(out, scale), described, judges, weights, dry_run), dry_run)


def retry(
    cluster: str = "",
    scale: str = DEFAULT_SCALE,
    out: Path = Path("results"),
    judges: Path = Path("data/judges"),
    weights: Path = Path("weights"),
    parallel: int = 1,
    dry_run: bool = False,
) -> int:
    """Start the planned cells again that failed, were cancelled or interrupted; nothing is planned anew.

    Args:
        cluster: where to, by name or file; empty for this machine.
        scale: the scale that was planned.
        out: folder of the results.
        judges: folder where the judge network is kept, and what the judges heard.
        weights: folder of public checkpoints.
        parallel: cells at a time, on this machine.
        dry_run: print the scripts, or the cells, and start nothing.
    """
    folder = results_folder(out, scale)
    planned = read_plan(folder)
    queue = Queue.of((Path(cell.run_dir) for cell in planned.cells), strict=bool(cluster))
    cells = cells_to_retry(planned, queue)
    if not cells:
        console().print("nothing has failed", highlight=False)
        return 0
    if cluster:
        return _show(submit_cells(cells, folder, load_cluster(cluster), judges, weights, dry_run), dry_run)
    if dry_run:
        console().print("\n".join(cell.label for cell in cells), highlight=False)
        return 0
    return execute(_jobs(cells, planned), run_command(judges, weights), folder, console(), parallel)


def prune(scale: str = DEFAULT_SCALE, out: Path = Path("results"), dry_run: bool = False) -> int:
    """Remove the checkpoints with optimiser states of runs whose cells are all done; the scored weights stay.

    Args:
        scale: the scale that was planned.
        out: folder of the results.
        dry_run: only say what would be removed.
    """
    shown = console()
    removed, kept = prune_runs(read_plan(results_folder(out, scale)).cells, dry_run)
    for run in removed:
        names = ", ".join(file.name for file in run.files)
        shown.print(f"{run.run_dir}: {names}, {run.num_bytes / 1e6:.1f} MB", highlight=False)
    for run_dir, reason in kept.items():
        shown.print(f"{run_dir}: left alone, {reason}", highlight=False)
    total, verb = sum(run.num_bytes for run in removed) / 1e6, "would be freed" if dry_run else "freed"
    shown.print(f"{total:.1f} MB of {len(removed)} runs {verb}", highlight=False)
    return 0


def cells_to_retry(planned: Plan, queue: Queue) -> list[PlannedCell]:
    """Return the selected cells that ended without a result, and those that wait for nothing but them.

    Args:
        planned: the plan.
        queue: of its runs.
    """
    states = [(c, state.state) for c, state in cell_states(planned, queue) if c.selected]
    ended = {cell.run_dir for cell, state in states if state in ENDED}

    def held_up(cell: PlannedCell) -> bool:
        """Never started, since something that it needs wasn't trained."""
        return bool(ended & set(cell.needs.values())) and bool(untrained_needs(cell.needs))

    return [cell for cell, state in states if state in ENDED or (state == NOT_RUN and held_up(cell))]


def _jobs(cells: list[PlannedCell], planned: Plan) -> list[Job]:
    """The cells' jobs, each scoring once, from the files that the runs have."""
    scorings: dict[tuple[str, str], list[PlannedCell]] = {}
    for cell in cells:
        scorings.setdefault((cell.run_dir, cell.protocol_hash), []).append(cell)
    jobs = []
    for (run_dir, protocol), answered in scorings.items():
        config = yaml.safe_load((Path(run_dir) / "config.yaml").read_text(encoding="utf-8"))
        labels = tuple(cell.label for cell in answered)
        needs = {label: Path(folder) for cell in answered for label, folder in cell.needs.items()}
        jobs.append(Job(labels, Path(run_dir), config, planned.protocols[protocol], protocol, needs))
    return jobs


def _show(done: Submission, dry_run: bool) -> int:
    shown = console()
    if dry_run:
        for path, text in done.scripts.items():
            shown.print(f"# {path}\n{text}", highlight=False, markup=False, soft_wrap=True)
        return 0
    _show_jobs(done, shown)
    return 1 if done.refused else 0


def _show_jobs(done: Submission, shown: Console) -> None:
    given = {job for run, job in done.jobs.items() if job not in done.kept.values()}
    shown.print(f"{len(given)} runs submitted in {len(done.scripts)} arrays, {len(done.kept)} were there already")
    for label, reason in done.refused.items():
        shown.print(f"{label}: not submitted, {reason}", highlight=False, markup=False, style="bold red")

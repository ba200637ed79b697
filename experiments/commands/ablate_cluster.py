"""`mntp ablate submit|retry|prune`: commands that a cluster needs.

Each returns its exit code. Only `submit` imports torch, and only to plan.
"""

from pathlib import Path

import yaml
from rich.console import Console

from experiments.ablate.local.execute import console, execute
from experiments.ablate.local.runner import run_command, write_run_files
from experiments.ablate.plan.job import Job
from experiments.ablate.plan.jobs import plan_jobs, show_missing
from experiments.ablate.plan.options import PlanOptions, ResultsOptions
from experiments.ablate.plan.plan_file import Plan, PlannedCell, read_plan
from experiments.ablate.results.prune import prune as prune_runs
from experiments.ablate.show.status_table import cell_states
from experiments.ablate.slurm.cluster import load_cluster
from experiments.ablate.slurm.state import Queue
from experiments.ablate.slurm.submit import Submission
from experiments.ablate.slurm.submit import submit as submit_jobs
from experiments.config.options import JudgeOptions
from experiments.runs.state import CANCELLED, DONE, FAILED, INTERRUPTED, NOT_RUN, read_state, untrained_needs

ENDED = (FAILED, CANCELLED, INTERRUPTED)


def submit(cluster: str, options: PlanOptions, dry_run: bool = False) -> int:
    """Give what isn't done and isn't queued to SLURM, an array of jobs for each resource shape.

    Args:
        cluster: a file of experiments/clusters by name, or any file.
        options: what is planned.
        dry_run: print the scripts, submit nothing and write nothing; data and weights need not be there yet.
    """
    described = load_cluster(cluster)  # before the slow plan
    _, jobs, missing = plan_jobs(options, look_only=dry_run)
    left = [job for job in jobs if read_state(job.run_dir, job.protocol_hash).state != DONE]
    if not dry_run:
        for job in left:
            write_run_files(job)
    for line in show_missing(missing):
        console().print(f"# {line}", highlight=False, markup=False, soft_wrap=True)
    return _show(submit_jobs(left, options.folder, described, options, dry_run), dry_run)


def retry(
    options: ResultsOptions, judge_options: JudgeOptions, cluster: str = "", parallel: int = 1, dry_run: bool = False
) -> int:
    """Start the planned cells again that failed, were cancelled or interrupted; nothing is planned again.

    Args:
        options: where the results lie.
        judge_options: where judges and public checkpoints lie.
        cluster: where to, by name or file; empty for this machine.
        parallel: cells at a time, on this machine.
        dry_run: print the scripts, or the cells, and start nothing.
    """
    planned = read_plan(options.folder)
    queue = Queue.of((Path(cell.run_dir) for cell in planned.cells), strict=bool(cluster))
    cells = cells_to_retry(planned, queue)
    if not cells:
        console().print("nothing has failed", highlight=False)
        return 0
    if dry_run and not cluster:
        console().print("\n".join(cell.label for cell in cells), highlight=False)
        return 0
    jobs = read_jobs(cells, planned)
    if cluster:
        return _show(submit_jobs(jobs, options.folder, load_cluster(cluster), judge_options, dry_run), dry_run)
    return execute(jobs, run_command(judge_options), options.folder, console(), parallel)


def prune(options: ResultsOptions, dry_run: bool = False) -> int:
    """Remove the checkpoints with optimiser states of runs whose cells are all done; the scored weights stay.

    Args:
        options: where the results lie.
        dry_run: only say what would be removed.
    """
    shown = console()
    removed, kept = prune_runs(read_plan(options.folder).cells, dry_run)
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


def read_jobs(cells: list[PlannedCell], planned: Plan) -> list[Job]:
    """Return the cells' jobs, each scoring once, from the files that the runs have.

    Raises:
        OSError: a run's config can't be read.
    """
    scorings: dict[tuple[str, str], list[PlannedCell]] = {}
    for cell in cells:
        scorings.setdefault((cell.run_dir, cell.protocol_hash), []).append(cell)
    jobs = []
    for (run_dir, protocol), answered in scorings.items():
        # The loader in C: ten times as fast, and a matrix may have thousands of runs.
        config = yaml.CSafeLoader((Path(run_dir) / "config.yaml").read_text(encoding="utf-8")).get_single_data()
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

"""A folder from which cells are submitted, and what one looks at from outside meanwhile."""

import csv
import io
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from experiments.ablate.plan.options import PlanOptions, ResultsOptions
from experiments.ablate.plan.plan_file import read_plan
from experiments.ablate.results.gather import gather_results
from experiments.ablate.show.status_table import cell_states, status_table
from experiments.ablate.slurm.state import Queue, RunJob
from experiments.commands import ablate_cluster as commands
from experiments.runs.state import CellState
from mntp.io.json_lines import read_json

RESULTS = Path("results/lab")
PATIENCE = 300.0  # without any sign of life, on a machine that others use as well


def say(*words: str) -> str:
    return subprocess.run(words, check=True, text=True, capture_output=True).stdout


def _step(file: Path) -> str:
    content = read_json(file) if file.suffix == ".json" else {}
    return f"{content.get('restarts')} {content.get('phase')} {content.get('step')}"


class World:
    """Cells of one folder.

    Args:
        folder: with `runs` and `results`; the working folder of this process.
        shared: with the matrix, the cluster's description, the store and the judge.
    """

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder, self.shared = folder, shared
        self.cluster = str(shared / "lab.yaml")

    def submit(self, rows: str) -> int:
        return commands.submit(self.cluster, self.options(rows))

    def options(self, rows: str) -> PlanOptions:
        """What is planned: rows of the lab's scale."""
        return PlanOptions(judges=self.shared / "judges", matrix=self.shared / "ablations.yaml", scale="lab", rows=rows)

    def retry(self) -> int:
        return commands.retry(ResultsOptions(scale="lab"), self.options(""), self.cluster)

    def cells(self) -> dict[str, CellState]:
        """What `status` says of the cells that were asked for, by label."""
        plan = read_plan(RESULTS)
        queue = Queue.of(Path(cell.run_dir) for cell in plan.cells)
        return {cell.label: state for cell, state in cell_states(plan, queue) if cell.selected}

    def states(self) -> dict[str, str]:
        return {label: state.state for label, state in self.cells().items()}

    def table(self) -> str:
        """The text of `mntp ablate status`."""
        plan, out = read_plan(RESULTS), io.StringIO()
        table = status_table(plan, Queue.of(Path(cell.run_dir) for cell in plan.cells))
        Console(file=out, width=400).print(table)
        return out.getvalue()

    def run_dir(self, label: str) -> Path:
        return next(Path(cell.run_dir) for cell in read_plan(RESULTS).cells if cell.label == label)

    def job(self, label: str) -> RunJob:
        run_dir = self.run_dir(label)
        return Queue.of([run_dir]).runs[run_dir]

    def wait(self, ready: Callable[[], object], what: str) -> None:
        """Wait as long as anything moves: a busy machine takes its time, and restarts are limited."""
        seen, end = self._signs_of_life(), time.monotonic() + PATIENCE
        while not ready():
            if (signs := self._signs_of_life()) != seen:
                seen, end = signs, time.monotonic() + PATIENCE
            assert time.monotonic() < end, f"never {what}\n{self.table()}\n{self.logs()}"
            time.sleep(0.1)

    def _signs_of_life(self) -> list[str]:
        """How far each run is, by its own files: those are few, and each attempt writes them."""
        names = ("attempt.json", "progress.json", "checkpoints/final.ckpt", "evals/*/metrics.json")
        return [str(file) + _step(file) for name in names for file in self.folder.glob(f"runs/*/{name}")]

    def wait_for_states(self, **states: str) -> None:
        """Wait for states by label without its table's number: `K="done"` for 3K."""
        expected = {f"3{row}": state for row, state in states.items()}
        self.wait(lambda: self.states() == expected, f"{expected}")

    def wait_for_training(self, label: str) -> None:
        """Wait until a cell has trained some steps, with a checkpoint."""
        run_dir = self.run_dir(label)
        last = run_dir / "checkpoints" / "last.ckpt"
        self.wait(lambda: last.is_file() and read_json(run_dir / "progress.json").get("step", 0) > 3, "training")

    def processes(self, rank: int | None = None) -> list[int]:
        """Process ids of this folder's tasks, of one rank or of all."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environ = (entry / "environ").read_bytes().split(b"\0")
                here = (entry / "cwd").readlink() == self.folder
            except OSError:  # gone meanwhile, or another user's
                continue
            mine = rank is None or f"SLURM_PROCID={rank}".encode() in environ
            if here and mine and b"experiments.ablate.slurm.task" in words and b"srun" not in words[0]:
                found.append(int(entry.name))
        return found

    def values(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Every number of the rows asked for that isn't a duration, by row and metric."""
        gather_results(RESULTS)
        asked = {cell.row for cell in read_plan(RESULTS).cells if cell.selected}
        with (RESULTS / "results.csv").open() as file:
            lines = [line for line in csv.DictReader(file) if line["value"] and "seconds" not in line["metric"]]
        return {
            (line["row"], line["metric"]): (line["value"], line["ci_low"], line["ci_high"], line["n"])
            for line in lines
            if line["row"] in asked
        }

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in RESULTS.glob("slurm/logs/*.log"))

"""A thousand cells by three seeds: nothing is resolved, prepared or read more often than it has to be."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.ablate.matrix.expand import expand
from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.matrix.select import select_rows
from experiments.ablate.plan.build import build_plan
from experiments.ablate.plan.plan_file import PlannedTable, read_plan, write_plan
from experiments.ablate.results import differences as comparison
from experiments.ablate.results.gather import gather_results
from experiments.ablate.show.plan_table import plan_view
from experiments.ablate.show.status_table import status_table
from experiments.ablate.slurm.state import Queue
from experiments.runs import state as status
from experiments.scoring.intervals import REPLICATES, write_replicates
from tests.experiments.ablate.results_support import cell, finish, plan_of, scores, scoring_folder
from tests.experiments.ablate.support import inputs, prepare_data, resolve, write_world

SEEDS = (0, 1, 2)
NUM_ROWS = 1000
MATRIX = """\
format: 1
scales:
  micro: {configs: experiments/configs/micro, eval: {num_clips: 4, batch_size: 4}}
axes:
  system: {AudioNTP: {config: audio_ntp}}
  width: {WIDTHS}
  depth: {DEPTHS}
tables:
  grid:
    title: a grid
    product: [system, width, depth]
  table1:
    title: one row
    baseline: A
    default_rows: [A]
    rows: {A: {axes: {system: AudioNTP, width: 1, depth: 1}, description: a row}}
reference:
  like: {table: table1, row: A}
  set: {trainer.max_steps: 0}
  rows: {untrained: {source: model, description: not trained}}
"""


def axis(key: str, count: int) -> str:
    return json.dumps({str(n): {"set": {f"model.init_args.head.init_args.{key}": n}} for n in range(1, count + 1)})


def counting(calls: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        calls[name] += 1
        return function(*arguments)

    return counted


def test_planning_resolves_each_config_once_whatever_its_seed(tmp_path: Path) -> None:
    text = MATRIX.replace("{WIDTHS}", axis("width", 40)).replace("{DEPTHS}", axis("depth", 25))
    matrix = load_matrix(write_world(tmp_path, text))
    cells = expand(matrix, "micro", SEEDS, {"grid"})
    calls: Counter[str] = Counter()
    plan, jobs = build_plan(
        matrix, cells, select_rows(matrix, "grid"), tmp_path / "runs",
        counting(calls, "resolve", resolve), inputs(counting(calls, "prepare", prepare_data)),
    )  # fmt: skip
    assert len([cell for cell in plan.cells if cell.table == "grid" and not cell.reference]) == NUM_ROWS * len(SEEDS)
    # And the row of table 1, the untrained model as a row of each table, and the base config.
    assert calls == {"resolve": NUM_ROWS + 4, "prepare": 1}
    assert len({job.run_dir for job in jobs}) == (NUM_ROWS + 1) * len(SEEDS)
    for job in jobs:  # each run keeps its own seed
        seeds = (job.config["model"]["init_args"]["seed"], job.config["data"]["seed"])
        assert seeds == (int(job.run_dir.name.rpartition("-s")[2]),) * 2
    assert len({id(job.config["data"]) for job in jobs}) == len(jobs), "no config shares what differs"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 rows by three seeds, done and resampled; a tenth of the matrix, for the time it takes to write."""
    folder = tmp_path_factory.mktemp("finished")
    cells = [
        cell(folder, "table3", f"R{row}", seed=seed, run_dir=str(folder / "runs" / f"R{row}-s{seed}"))
        for seed in SEEDS
        for row in range(NUM_ROWS // 10)
    ]
    for number, item in enumerate(cells):
        finish(item, scores(2.0 + number / 100, 0.3, intervals={"fd_judge": [1.0, 3.0]}))
        write_replicates(scoring_folder(item) / REPLICATES, {"fd_judge": np.linspace(0, 1, 50) + number % 7})
    write_plan(plan_of(*cells, table3=PlannedTable("a grid", baseline="R0")), folder)
    return folder


def test_looking_reads_each_file_once(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, calls = read_plan(finished), Counter[str]()
    monkeypatch.setattr(status, "read_json", counting(calls, "json", status.read_json))
    monkeypatch.setattr(comparison, "read_replicates", counting(calls, "replicates", comparison.read_replicates))
    status_table(plan, Queue())
    per_cell = calls.pop("json") / len(plan.cells)
    assert per_cell == 5  # metrics, failure, progress, run, score
    plan_view(plan)
    assert calls.pop("json") == per_cell * len(plan.cells)
    gather_results(finished)
    assert calls == {"json": per_cell * len(plan.cells), "replicates": len(plan.cells)}


def test_replicates_of_one_row_and_the_baseline_are_held_at_a_time(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: set[int] = set()
    most = 0
    read = comparison.read_replicates

    class Held(dict[str, Any]):
        def __init__(self, *arguments: Any) -> None:
            nonlocal most
            super().__init__(*arguments)
            alive.add(id(self))
            most = max(most, len(alive))

        def __del__(self) -> None:
            alive.discard(id(self))

    monkeypatch.setattr(comparison, "read_replicates", lambda path: Held(read(path)))
    gather_results(finished)
    assert len(SEEDS) < most <= 3 * len(SEEDS)  # the baseline's, a row's, and the next one's while it is read

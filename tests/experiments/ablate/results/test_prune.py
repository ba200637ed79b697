"""Pruning frees what nothing rests on, and retrying starts what ended without a result."""

import dataclasses
import fcntl
import zipfile
from pathlib import Path

import pytest

from experiments.ablate.plan.plan_file import Plan, PlannedCell
from experiments.ablate.results.prune import prune
from experiments.ablate.slurm.scheduler import JobInfo
from experiments.ablate.slurm.state import Queue, RunJob
from experiments.commands.ablate_cluster import cells_to_retry
from experiments.runs.state import eval_folder
from mntp.io.json_lines import write_json


def cell(runs: Path, row: str, done: bool = True, needs: tuple[str, ...] = ()) -> PlannedCell:
    """A cell with a run folder as a finished training leaves it."""
    run_dir = runs / row
    scoring = eval_folder(run_dir, "p")
    scoring.mkdir(parents=True, exist_ok=True)
    (run_dir / "checkpoints").mkdir(exist_ok=True)
    for name in ("last.ckpt", ".last.ckpt.abc.tmp", "best.ckpt"):
        (run_dir / "checkpoints" / name).write_bytes(b"x" * 10)
    with zipfile.ZipFile(run_dir / "checkpoints" / "final.ckpt", "w") as file:
        file.writestr("data", "weights")
    if done:
        write_json(scoring / "metrics.json", {"fd_judge": 1.0})
    return PlannedCell(
        table="table3", row=row, reference=False, system="S", scale="micro", seed=0, description="", settings={},
        source="model", differences={}, published={}, selected=True, needs={f"3{n}": str(runs / n) for n in needs},
        same_as="", run_dir=str(run_dir), train_hash="t", protocol_hash="p",
    )  # fmt: skip


def names(runs: Path, row: str) -> set[str]:
    return {path.name for path in (runs / row / "checkpoints").iterdir()}


ALL = {"last.ckpt", ".last.ckpt.abc.tmp", "best.ckpt", "final.ckpt"}


def test_a_finished_run_loses_its_optimiser_states_and_keeps_its_weights(tmp_path: Path) -> None:
    cells = [cell(tmp_path, "G"), cell(tmp_path, "H", done=False)]
    removed, kept = prune(cells, dry_run=True)
    assert [(run.run_dir.name, run.num_bytes) for run in removed] == [("G", 20)] and names(tmp_path, "G") == ALL
    removed, kept = prune(cells)
    assert names(tmp_path, "G") == {"best.ckpt", "final.ckpt"} and names(tmp_path, "H") == ALL
    assert kept == {tmp_path / "H": "3H isn't done"}
    assert prune(cells)[0] == []


def test_a_run_of_another_cell_that_is_not_done_is_left_alone(tmp_path: Path) -> None:
    done = cell(tmp_path, "G")
    other = dataclasses.replace(done, table="table8", row="C", protocol_hash="q")
    assert prune([done, other])[1] == {tmp_path / "G": "8C isn't done"} and names(tmp_path, "G") == ALL
    unasked = dataclasses.replace(other, selected=False)
    assert [run.run_dir.name for run in prune([done, unasked])[0]] == ["G"]


def test_without_whole_final_weights_nothing_goes(tmp_path: Path) -> None:
    cells = [cell(tmp_path, "G"), cell(tmp_path, "H")]
    final = tmp_path / "G/checkpoints/final.ckpt"
    final.write_bytes(final.read_bytes()[:-10])
    (tmp_path / "H/checkpoints/final.ckpt").unlink()
    removed, kept = prune(cells)
    assert not removed and set(kept.values()) == {"it has no whole final checkpoint"}


def test_a_run_that_is_held_is_left_alone(tmp_path: Path) -> None:
    cells = [cell(tmp_path, "G")]
    with (tmp_path / "G/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune(cells)[1] == {tmp_path / "G": "a process holds it"}
    assert names(tmp_path, "G") == ALL


@pytest.mark.parametrize("asked", [True, False])
def test_what_failed_is_retried_with_what_it_held_up(tmp_path: Path, asked: bool) -> None:
    cells = [
        cell(tmp_path, "A"),
        cell(tmp_path, "K", done=False),
        cell(tmp_path, "B", done=False, needs=("K",)),
        cell(tmp_path, "G", done=False),
        cell(tmp_path, "H", done=False),
    ]
    write_json(eval_folder(tmp_path / "K", "p") / "failure.json", {"reason": "boom"})
    write_json(eval_folder(tmp_path / "H", "p") / "failure.json", {"reason": "boom"})
    (tmp_path / "K/checkpoints/final.ckpt").unlink()
    cells = [dataclasses.replace(one, selected=asked) for one in cells]
    plan = Plan("m", "micro", "embedded", {}, {}, tuple(cells))
    queue = Queue(
        {tmp_path / "H": RunJob("1_0", frozenset("p"), tmp_path / "log", info=JobInfo("PENDING", "Priority"))}
    )
    assert [one.row for one in cells_to_retry(plan, queue)] == (["K", "B"] if asked else [])

"""Submitting cells: arrays, dependencies, scripts, what is queued already, and what `status` makes of the answers.

squeue, sacct and sbatch are small programs here that say what a test wants; tests/cluster asks the real ones.
"""

import dataclasses
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.ablate.plan.job import Job
from experiments.ablate.plan.plan_file import Plan, PlannedCell
from experiments.ablate.slurm import scheduler
from experiments.ablate.slurm.array import ATTEMPT, SUBMITTED, RunTask, TaskArray, task_log
from experiments.ablate.slurm.cluster import Cluster, load_cluster
from experiments.ablate.slurm.group import group_by_run, group_by_shape
from experiments.ablate.slurm.script import job_script
from experiments.ablate.slurm.state import Queue
from experiments.ablate.slurm.submit import Submission, submit
from experiments.commands.ablate_cluster import cells_to_retry
from experiments.config.options import JudgeOptions
from experiments.runs.state import (
    CANCELLED,
    DONE,
    FAILED,
    INTERRUPTED,
    NOT_RUN,
    QUEUED,
    RUNNING,
    CellState,
    eval_folder,
)
from mntp.io.json_lines import write_json
from tests.experiments.ablate.support import REPOSITORY

CLUSTER = Cluster("lab", nodes=5, devices_per_node=8, time="10")


def cell(row: str, needs: tuple[str, ...] = (), nodes: int = 1, devices: int = 1, protocol: str = "p") -> PlannedCell:
    """A cell of table 3 whose run's config is written."""
    run_dir = Path("runs") / row
    eval_folder(run_dir, protocol).mkdir(parents=True, exist_ok=True)
    (run_dir / "config.yaml").write_text(json.dumps({"trainer": {"num_nodes": nodes, "devices": devices}}))
    return PlannedCell(
        table="table3", row=row, reference=False, system="S", scale="micro", seed=0, description="", settings={},
        source="model", differences={}, published={}, selected=True, needs={f"3{n}": f"runs/{n}" for n in needs},
        same_as="", run_dir=str(run_dir), train_hash="t", protocol_hash=protocol,
    )  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs that stand for SLURM's: `queue` is squeue's answer, sbatch counts from 100."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "queue").touch()
    forgetful = '{ echo "storage is disabled" >&2; exit 1; }'
    texts = {
        "squeue": f"cat {tmp_path}/queue",
        "sacct": f"[ -e {tmp_path}/accounts ] && cat {tmp_path}/accounts || {forgetful}",
        "sbatch": f'[ -e {tmp_path}/full ] && {{ echo "sbatch: error: Invalid partition" >&2; exit 1; }}\n'
        f'echo "$*" >> {tmp_path}/calls; echo $((99 + $(wc -l < {tmp_path}/calls)))',
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jobs(*cells: PlannedCell) -> list[Job]:
    """The jobs of cells, each with the config that its run has."""
    protocol = {"scoring": {}, "generation": {"source": "model"}}
    return [
        Job((cell.label,), run_dir := Path(cell.run_dir), json.loads((run_dir / "config.yaml").read_text()), protocol,
            cell.protocol_hash, {label: Path(folder) for label, folder in cell.needs.items()})
        for cell in cells
    ]  # fmt: skip


def give(*cells: PlannedCell, dry_run: bool = False) -> Submission:
    return submit(jobs(*cells), Path("results"), CLUSTER, JudgeOptions(), dry_run)


def calls(here: Path) -> list[str]:
    path = here / "calls"
    return path.read_text().splitlines() if path.is_file() else []


def test_one_array_for_each_shape_and_each_thing_to_wait_for(here: Path) -> None:
    cells = [cell("B", ("K",)), cell("G"), cell("H", nodes=5, devices=8), cell("I"), cell("K"), cell("L", ("K", "G"))]
    groups = [[task.labels[0] for task in group] for group in group_by_shape(group_by_run(jobs(*cells)), 100)]
    assert groups == [["3G", "3I", "3K"], ["3H"], ["3B"], ["3L"]]


def test_an_array_has_no_more_tasks_than_the_cluster_takes(here: Path) -> None:
    groups = group_by_shape(group_by_run(jobs(*(cell(f"r{number}") for number in range(5)))), 2)
    assert [len(group) for group in groups] == [2, 2, 1]


def test_a_run_is_one_task_whatever_number_of_scorings_it_has(here: Path) -> None:
    one = cell("G", protocol="p")
    same = dataclasses.replace(one, table="table8", row="C", same_as="3G")
    (task,) = group_by_run(jobs(one, cell("G", protocol="q"), same))
    assert task.protocols == ("p", "q") and task.label == "3G = 3G = 8C"


def test_a_trained_run_takes_one_device(here: Path) -> None:
    one = cell("G", nodes=5, devices=8)
    assert group_by_run(jobs(one))[0].shape == "5x8"
    (Path(one.run_dir) / "checkpoints").mkdir()
    (Path(one.run_dir) / "checkpoints" / "final.ckpt").touch()
    assert group_by_run(jobs(one))[0].shape == "5x8"  # its held-out losses are still to be taken
    (Path(one.run_dir) / "held_out.safetensors").touch()
    assert group_by_run(jobs(one))[0].shape == "1x1"


def test_dependencies_are_tasks_of_other_arrays(here: Path) -> None:
    done = give(cell("G"), cell("K"), cell("B", ("K",)))
    assert done.jobs == {Path("runs/G"): "100_0", Path("runs/K"): "100_1", Path("runs/B"): "101_0"}
    assert "--dependency" not in calls(here)[0] and "--dependency=afterok:100_1 " in calls(here)[1]
    record = json.loads((here / "runs/B" / SUBMITTED).read_text())
    assert record["job"] == "101_0"
    assert TaskArray.read(here / record["array"]).tasks[0].needs == {"3K": Path("runs/K")}


def test_what_is_queued_is_not_queued_twice_and_may_be_waited_for(here: Path) -> None:
    give(cell("K"))
    (here / "queue").write_text("100_0|PENDING|Resources|\n")
    done = give(cell("K"), cell("B", ("K",)))
    assert done.kept == {"3K": "100_0"} and done.jobs[Path("runs/B")] == "101_0"
    assert "--dependency=afterok:100_0 " in calls(here)[1]
    (here / "queue").write_text("100_0|FAILED|NonZeroExitCode|\n")
    assert give(cell("K")).jobs == {Path("runs/K"): "102_0"}


def test_another_scoring_of_a_run_that_is_busy_is_not_taken_for_queued(here: Path) -> None:
    give(cell("G", protocol="p"))
    (here / "queue").write_text("100_0|RUNNING|None|n1\n")
    done = give(cell("G", protocol="q"))
    assert not done.kept and "its run is in job 100_0 for other scorings" in done.refused["3G"]
    queue = Queue.of([Path("runs/G")])
    assert queue.state(Path("runs/G"), "p", CellState(NOT_RUN)).state == RUNNING
    assert queue.state(Path("runs/G"), "q", CellState(NOT_RUN)).state == NOT_RUN


def test_a_need_that_nobody_trains_is_said(here: Path) -> None:
    done = give(cell("B", ("K",)), cell("G"))
    assert list(done.jobs) == [Path("runs/G")]
    assert done.refused == {"3B": "needs 3K, which is neither trained nor queued"}


def test_an_array_that_is_refused_stops_what_needs_it(here: Path) -> None:
    (here / "full").touch()
    done = give(cell("K"), cell("B", ("K",)))
    assert done.refused["3K"] == "sbatch: sbatch: error: Invalid partition" and "needs 3K" in done.refused["3B"]
    assert not (here / "runs/K" / SUBMITTED).exists()


def test_a_machine_without_sbatch_is_said_and_leaves_nothing_queued(here: Path) -> None:
    (here / "bin/sbatch").unlink()
    (here / "bin/sbatch").symlink_to("/nowhere/sbatch")  # hides one that is installed
    programs = os.environ["PATH"].partition(":")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", programs)
        done = give(cell("K"), cell("B", ("K",)))
    assert done.refused["3K"] == "sbatch: no such command; is this a machine of the cluster?"
    assert not done.jobs and not list((here / "runs").glob(f"*/{SUBMITTED}"))


def test_of_two_submissions_at_once_one_submits(here: Path) -> None:
    (here / "results/slurm").mkdir(parents=True)
    with (here / "results/slurm/lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is submitting cells just now; try again"):
            give(cell("K"))
    assert not calls(here)
    assert give(cell("K")).jobs == {Path("runs/K"): "100_0"}


def test_a_job_that_was_cancelled_while_it_waited_is_submitted_again_when_asked(here: Path) -> None:
    one = cell("K")
    eval_folder(Path(one.run_dir), one.protocol_hash).rmdir()  # it never ran
    give(one)
    (here / "queue").write_text("100_0|CANCELLED|None|\n")
    plan = Plan("m", "micro", "embedded", {}, {}, (one,))
    assert cells_to_retry(plan, Queue.of([Path(one.run_dir)])) == [one]
    assert give(one).jobs == {Path("runs/K"): "101_0"}


def test_what_does_not_fit_on_the_cluster_is_said_before_anything_is_submitted(here: Path) -> None:
    with pytest.raises(ValueError, match=r"6 nodes x 1 devices don't fit on lab \(5 x 8\)"):
        give(cell("G"), cell("H", nodes=6))
    assert not calls(here)


def test_a_dry_run_asks_nobody_and_writes_nothing(here: Path) -> None:
    done = give(cell("G"), dry_run=True)
    assert len(done.scripts) == 1 and not calls(here) and not (here / "results").exists()


def test_the_script_is_shell_and_says_all_that_matters(here: Path) -> None:
    cluster_file = str(REPOSITORY / "experiments/clusters/5x8.yaml")
    cluster = load_cluster(cluster_file).for_shape(5, 8)
    tasks = [RunTask(Path("runs/G"), ("p",), ("3G",), {}, 5, 8)] * 3
    text = job_script(Path("results/slurm/mntp-1.json"), tasks, cluster, Path("/a folder"))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    lines = text.splitlines()
    for option in (
        "--array=0-2%1", "--nodes=5", "--ntasks-per-node=8", "--gpus-per-node=8", "--partition=gpu", "--requeue",
        "--signal=USR1@300", "--open-mode=append", "--kill-on-invalid-dep=yes", "--time=1-00:00:00", "--exclusive",
        "--output=results/slurm/logs/mntp-1-%A_%a.log",
    ):  # fmt: skip
        assert f"#SBATCH {option}" in lines
    assert "cd '/a folder' || exit 1" in lines and "module load cuda" in lines
    assert not [line for line in lines if "qos" in line]
    assert any(line.startswith("srun --kill-on-bad-exit=1") for line in lines)
    one = job_script(Path("mntp-1.json"), tasks[:1], load_cluster(cluster_file).for_shape(1, 1), Path("/"))
    assert "--exclusive" not in one and "#SBATCH --time=04:00:00" in one


@pytest.mark.parametrize("name", ["5x8", "13x8"])
def test_the_examples_are_the_papers_clusters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    cluster = load_cluster(name)
    assert f"{cluster.nodes}x{cluster.devices_per_node}" == name
    assert cluster.for_shape(1, 1).time == "04:00:00" and cluster.for_shape(1, 2).time == cluster.time


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: 1\ntime: 5\n", "the key 'devices_per_node' is missing"),
        ("nodes: 1\ndevices_per_node: 8\ntime: 5\npartion: x\n", r":4: partion: .*did you mean 'partition'"),
        ("nodes: none\ndevices_per_node: 8\ntime: 5\n", ":1: nodes: expected a whole number from 1 up"),
        ("nodes: 1\ndevices_per_node: 8\ntime: 5\ngpus: a100\n", ":4: gpus: expected an option with {}"),
        ("nodes: 1\ndevices_per_node: 8\ntime: 5\nshapes: {1x8: {nodes: 2}}\n", "shapes.1x8.nodes"),
    ],
)
def test_a_cluster_file_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_cluster(str(tmp_path / "mine.yaml"))


def test_a_cluster_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(FileNotFoundError, match="no such cluster; known: 13x8, 5x8"):
        load_cluster("6x8")


def state(here: Path, answer: str, folder: CellState, restarts: int | None = None) -> CellState:
    """What is said of a run that was submitted as 100_0, given squeue's answer and its folder's state."""
    give(cell("G"))
    (here / "queue").write_text(answer)
    if restarts is not None:
        write_json(here / "runs/G" / ATTEMPT, {"job": "100_0", "restarts": restarts, "nodes": "n[1-2]"})
    queue = Queue.of([Path("runs/G")])
    if restarts is not None:
        assert (queue.runs[Path("runs/G")].restarts, queue.runs[Path("runs/G")].nodes) == (restarts, "n[1-2]")
    return queue.state(Path("runs/G"), "p", folder)


@pytest.mark.parametrize(
    ("answer", "folder", "expected", "reason"),
    [
        ("100_0|PENDING|Priority|", NOT_RUN, QUEUED, "waits for Priority"),
        ("100_0|PENDING|PartitionConfig|", NOT_RUN, QUEUED, "it never starts like this"),
        ("100_0|PENDING|BeginTime|", FAILED, QUEUED, "waits for BeginTime"),  # a killed rank's word, before the requeue
        ("100_0|RUNNING|None|n1", INTERRUPTED, RUNNING, "at it"),  # another node's lock isn't seen here
        ("100_0|RUNNING|None|n1", NOT_RUN, RUNNING, "starting"),
        ("100_0|COMPLETED|None|n1", DONE, DONE, "at it"),
        ("100_0|COMPLETED|None|n1", INTERRUPTED, FAILED, "ended as COMPLETED, without a result"),
        ("100_0|TIMEOUT|TimeLimit|n1", INTERRUPTED, FAILED, "TIMEOUT"),
        ("100_0|FAILED|NonZeroExitCode|n1", FAILED, FAILED, "at it"),  # the task's own reason
        ("100_0|FAILED|NonZeroExitCode|n1", RUNNING, RUNNING, "at it"),  # someone else holds it
        ("100_0|CANCELLED|None|", INTERRUPTED, CANCELLED, "its job was cancelled"),
        ("100_0|CANCELLED|DependencyNeverSatisfied|", NOT_RUN, CANCELLED, "DependencyNeverSatisfied"),
        ("99_0|RUNNING|None|n1", INTERRUPTED, INTERRUPTED, "at it"),  # forgotten
    ],
)
def test_the_folder_and_the_scheduler_together(
    here: Path, answer: str, folder: str, expected: str, reason: str
) -> None:
    found = state(here, answer + "\n", CellState(folder, "at it"), restarts=2)
    assert found.state == expected and reason in found.reason


def test_a_failure_without_a_word_shows_the_last_lines_of_its_log(here: Path) -> None:
    give(cell("G"))
    log = task_log(Path(json.loads((here / "runs/G" / SUBMITTED).read_text())["array"]), "100_0")
    log.write_text("one\nslurmstepd: error: out of memory\n")
    (here / "queue").write_text("100_0|OUT_OF_MEMORY||\n")
    found = Queue.of([Path("runs/G")]).state(Path("runs/G"), "p", CellState(INTERRUPTED))
    assert found.state == FAILED and found.reason.endswith("slurmstepd: error: out of memory")
    found = Queue.of([Path("runs/G")]).state(Path("runs/G"), "p", CellState(FAILED, "the disk is full"))
    assert found.reason.splitlines() == ["the disk is full", "one", "slurmstepd: error: out of memory"]


def test_accounting_knows_what_the_queue_has_forgotten(here: Path) -> None:
    (here / "accounts").write_text("100_0|CANCELLED by 0|None|None assigned\n")
    assert scheduler.ask(["100_0"])["100_0"] == scheduler.JobInfo("CANCELLED")


def test_without_a_scheduler_folders_still_speak(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(cell("G"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="squeue: no such command"):
        Queue.of([Path("runs/G")])
    queue = Queue.of([Path("runs/G")], strict=False)
    assert "no such command" in queue.silence
    assert queue.state(Path("runs/G"), "p", CellState(INTERRUPTED, "at it")) == CellState(INTERRUPTED, "at it")


@pytest.mark.parametrize(
    "module",
    [
        "commands.ablate_cluster",
        "ablate.slurm.submit",
        "ablate.slurm.state",
        "ablate.results.prune",
        "ablate.slurm.scheduler",
        "ablate.show.status_table",
    ],
)
def test_none_of_it_imports_torch(module: str) -> None:
    heavy = "{'torch', 'lightning', 'pandas', 'jsonargparse'} & set(sys.modules)"
    code = f"import sys, experiments.{module}; loaded = {heavy}; assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)

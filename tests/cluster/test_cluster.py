"""Cells of two nodes on a real SLURM: whatever interrupts them, the tables end up equal, and `status` tells the truth.

Every test has runs of its own and compares its numbers with those of an array that nothing interrupted.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.ablate.slurm.array import ATTEMPT
from experiments.config.options import JudgeOptions
from experiments.runs.state import CANCELLED, DONE, FAILED, QUEUED, RUNNING
from tests.cluster.world import RESULTS, World, say

pytestmark = pytest.mark.slow
Values = dict[tuple[str, str], tuple[str, ...]]
WHOLE = "TEST_CLUSTER_WHOLE"  # a file with the numbers of another user's uninterrupted array


@pytest.fixture
def world(slurm: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path, shared)


@pytest.fixture(scope="session")
def whole(slurm: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Values, str]:
    """The numbers of an uninterrupted array, and what `status` said of it."""
    if given := os.environ.get(WHOLE):
        return {(row, metric): tuple(numbers) for row, metric, numbers in json.loads(Path(given).read_text())}, ""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        world = World(folder, shared)
        assert world.submit("3G,3K,3B") == 0
        assert set(world.states()) == {"3G", "3K", "3B"} and world.states()["3B"] == QUEUED
        assert world.submit("3G,3K,3B") == 0  # ask twice and it is queued once
        assert len(say("squeue", "--me", "-h", "-r", "-t", "all").splitlines()) == 3
        world.wait_for_states(G=DONE, K=DONE, B=DONE)
        return world.values(), world.table()


def of_row(values: Values, *rows: str) -> Values:
    found = {key: value for key, value in values.items() if key[0] in rows}
    assert all(any(key == (row, "fd_judge") for key in found) for row in rows)
    return found


def test_an_array_of_two_node_cells_and_one_that_needs_another(whole: tuple[Values, str]) -> None:
    values, table = whole
    assert of_row(values, "G", "K", "B") == values
    assert len({values[row, "fd_judge"] for row in "GKB"}) == 3
    lines = {words[0]: words for line in table.splitlines() if len(words := line.replace("│", " ").split()) > 3}
    (job,) = (word for word in lines["3B"] if word.endswith("_0"))
    assert lines["3B"][2] == "done" and job in table and "127.0.0.[1-2]" in lines["3B"]


def test_a_preempted_cell_goes_on(world: World, whole: tuple[Values, str]) -> None:
    world.submit("3G")
    world.wait((world.run_dir("3G") / ATTEMPT).is_file, "started")
    say("scancel", "--signal=USR1", world.job("3G").job)  # it still imports its libraries
    world.wait(lambda: world.job("3G").restarts == 1, "started again")
    world.wait_for_training("3G")
    flag = world.folder / "flag"
    wait = f"while [ ! -e {flag} ]; do sleep 0.1; done"
    say("sbatch", "--partition=high", "-N4", "--exclusive", "--output=/dev/null", f"--wrap={wait}")
    world.wait(lambda: world.states() == {"3G": QUEUED}, "preempted")
    progress = world.cells()["3G"].progress
    assert progress["phase"] == "training" and progress["step"] < 150
    flag.touch()
    world.wait_for_states(G=DONE)
    assert world.job("3G").restarts == 2
    assert world.values() == of_row(whole[0], "G")


def test_a_killed_rank_is_started_again(world: World, whole: tuple[Values, str]) -> None:
    world.submit("3G")
    world.wait_for_training("3G")
    for process in world.processes(rank=1):
        os.kill(process, signal.SIGKILL)
    world.wait(lambda: world.states()["3G"] == QUEUED, "queued again")
    world.wait_for_states(G=DONE)
    assert world.job("3G").restarts == 1
    assert world.values() == of_row(whole[0], "G")


def test_a_cell_at_its_time_limit_goes_on_behind_the_queue(world: World, whole: tuple[Values, str]) -> None:
    cluster = world.folder / "short.yaml"
    cluster.write_text(Path(world.cluster).read_text().replace("time: '10'", "time: '2'"))
    world.cluster = str(cluster)
    world.submit("3G")
    world.wait_for_training("3G")
    assert "TimeLimit=00:02:00" in say("scontrol", "show", "job", world.job("3G").job)
    before, processes = world.job("3G").restarts, world.processes()
    for process in processes:  # a training that takes longer than that
        os.kill(process, signal.SIGSTOP)
    assert world.states() == {"3G": RUNNING}

    def queued() -> bool:
        for process in processes:
            if pending(process, signal.SIGUSR1):  # warned; SLURM itself may have sent SIGCONT before
                os.kill(process, signal.SIGCONT)
        return world.states() == {"3G": QUEUED}

    world.wait(queued, "warned of its limit and queued again")
    world.wait_for_states(G=DONE)
    assert world.job("3G").restarts > before  # where libraries load slowly, it may come to its limit more than once
    assert world.values() == of_row(whole[0], "G")


def pending(process: int, number: int) -> bool:
    """Whether a signal waits for a stopped process."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended
        return False
    mask = int(next(line.split()[1] for line in text.splitlines() if line.startswith("ShdPnd")), 16)
    return bool(mask >> (number - 1) & 1)


def test_a_lost_node_s_cell_goes_on_elsewhere(world: World, whole: tuple[Values, str]) -> None:
    world.submit("3G")
    world.wait_for_training("3G")
    assert world.job("3G").nodes == "127.0.0.[1-2]"
    say("scontrol", "update", "nodename=127.0.0.2", "state=down", "reason=test")
    try:
        world.wait(lambda: world.states()["3G"] == QUEUED, "queued again")
        world.wait_for_states(G=DONE)
        job = world.job("3G")
        assert "2" not in job.nodes.partition("[")[2] and job.restarts == 1
    finally:
        say("scontrol", "update", "nodename=127.0.0.2", "state=resume")
    assert world.values() == of_row(whole[0], "G")


def test_a_failed_cell_stops_what_needs_it_and_nothing_else(world: World, whole: tuple[Values, str]) -> None:
    from experiments.ablate.plan.jobs import plan_jobs

    plan_jobs(world.options("3G,3K,3B"))
    obstacle = world.run_dir("3K") / "checkpoints"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder should be")
    world.submit("3G,3K,3B")
    world.wait(lambda: world.states() == {"3G": DONE, "3K": FAILED, "3B": CANCELLED}, "failed alone")
    cells = world.cells()
    assert "checkpoints" in cells["3K"].reason and "Dependency" in cells["3B"].reason
    assert world.job("3K").restarts == 0  # it would only have failed again
    assert world.values() == of_row(whole[0], "G")
    before = (world.run_dir("3G") / "checkpoints" / "final.ckpt").stat().st_mtime_ns
    obstacle.unlink()
    assert world.retry() == 0
    world.wait_for_states(G=DONE, K=DONE, B=DONE)
    assert world.values() == whole[0]
    assert (world.run_dir("3G") / "checkpoints" / "final.ckpt").stat().st_mtime_ns == before


def test_a_cancelled_array_stays_away_until_it_is_asked_for(world: World, whole: tuple[Values, str]) -> None:
    world.submit("3G,3K")
    world.wait_for_training("3G")
    array = world.job("3G").job.partition("_")[0]
    say("scancel", array)
    world.wait_for_states(G=CANCELLED, K=CANCELLED)
    time.sleep(8)  # longer than a requeued job waits
    assert world.states() == {"3G": CANCELLED, "3K": CANCELLED}
    assert world.retry() == 0
    world.wait_for_states(G=DONE, K=DONE)
    assert world.values() == of_row(whole[0], "G", "K")


def test_nodes_that_do_not_match_are_refused_in_seconds(world: World, whole: tuple[Values, str]) -> None:
    from experiments.ablate.local.runner import write_run_files
    from experiments.ablate.plan.jobs import plan_jobs
    from experiments.ablate.slurm.array import RunTask, TaskArray

    jobs = plan_jobs(world.options("3G"))[1]
    write_run_files(jobs[0])
    task = RunTask(jobs[0].run_dir, (jobs[0].protocol_hash,), ("3G",), {}, 2, 1)
    TaskArray((task,), JudgeOptions(), 0).write(world.folder / "array.json")
    words = [
        "srun",
        "-N1",
        "-n1",
        "--job-name=cell",
        sys.executable,
        "-m",
        "experiments.ablate.slurm.task",
        "array.json",
        "0",
    ]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "the run wants 2 nodes x 1 tasks, SLURM gave 1 nodes and 1 tasks" in done.stderr
    assert world.cells()["3G"].state == FAILED


@pytest.mark.skipif(os.geteuid() != 0, reason="runs as an ordinary user already")
def test_the_same_as_an_ordinary_user(slurm: Path, whole: tuple[Values, str]) -> None:
    # May read root's files, where the interpreter may lie; else it may do what any user may.
    reads = "+dac_read_search"
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={reads}"]
    home = Path("/tmp") / f"mntp-nobody-{os.getpid()}"
    home.mkdir()
    os.chown(home, 65534, 65534)
    numbers = home / "whole.json"
    numbers.write_text(json.dumps([[*key, value] for key, value in whole[0].items()]))
    keep = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environ = keep | {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1", WHOLE: str(numbers)}
    pytest_line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    tests = f"{__file__}::test_a_killed_rank_is_started_again"
    line = [*user, f"--ambient-caps={reads}", *pytest_line, tests]
    try:
        done = subprocess.run(line, check=False, capture_output=True, text=True, env=environ, timeout=1200)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_scripts_can_be_read_before_anything_starts(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.commands import ablate_cluster as commands

    assert commands.submit(world.cluster, world.options("3K,3B"), dry_run=True) == 0
    text = capsys.readouterr().out
    assert text.count("#!/bin/bash") == 2 and "#SBATCH --signal=USR1@30" in text and "# after 3K" in text
    assert not (RESULTS / "slurm").exists()

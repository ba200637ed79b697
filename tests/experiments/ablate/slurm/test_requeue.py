"""What follows a task that ended: killed or asked to stop it goes on, failed by itself it doesn't."""

from pathlib import Path

import pytest

from experiments.ablate.slurm.array import ATTEMPT, RunTask
from experiments.ablate.slurm.requeue import goes_on
from experiments.ablate.slurm.task import record_failure
from experiments.runs.state import FAILED, read_state
from experiments.runs.stop import EXIT_STOPPED
from mntp.io.json_lines import read_json, write_json


@pytest.fixture
def task(tmp_path: Path) -> RunTask:
    for protocol in ("p1", "p2"):
        (tmp_path / "run" / "evals" / protocol).mkdir(parents=True)
    (tmp_path / "log").write_text("first\nlast line\n")
    return RunTask(tmp_path / "run", ("p1", "p2"), ("3G", "8C"), {}, 2, 1)


def ends(task: RunTask, code: int, restarts: int = 0) -> bool:
    return goes_on(task, code, restarts, 3, task.run_dir.parent / "log")


def reason(task: RunTask, protocol: str = "p1") -> str:
    return str(read_json(task.run_dir / "evals" / protocol / "failure.json").get("reason", ""))


@pytest.mark.parametrize("code", [EXIT_STOPPED, 137, 134, 143])
def test_what_was_stopped_or_killed_goes_on_as_often_as_it_may(task: RunTask, code: int) -> None:
    assert ends(task, code) and ends(task, code, restarts=2) and not reason(task)
    assert not ends(task, code, restarts=3)
    assert "started again 3 times already" in reason(task) and "last line" in reason(task)


@pytest.mark.parametrize(("code", "says"), [(1, "exit code 1"), (2, "exit code 2"), (0, "without writing metrics")])
def test_what_failed_by_itself_does_not(task: RunTask, code: int, says: str) -> None:
    assert not ends(task, code)
    assert says in reason(task) and says in reason(task, "p2")
    assert read_state(task.run_dir, "p1").state == FAILED


def test_a_ranks_own_error_counts_though_the_others_were_killed(task: RunTask) -> None:
    record_failure(task, "the data has 64 tokens")
    assert not ends(task, 137)
    assert reason(task) == "the data has 64 tokens"


def test_a_scoring_that_failed_does_not_hold_up_the_one_that_was_killed(task: RunTask) -> None:
    write_json(task.run_dir / "evals" / "p1" / "failure.json", {"reason": "another judge"})
    assert ends(task, 137) and reason(task) == "another judge"


def test_what_is_done_or_held_by_another_stays(task: RunTask) -> None:
    write_json(task.run_dir / ATTEMPT, {"outcome": "held"})
    assert not ends(task, 137) and not reason(task)
    write_json(task.run_dir / ATTEMPT, {"outcome": ""})
    for protocol in task.protocols:
        write_json(task.run_dir / "evals" / protocol / "metrics.json", {"fd_judge": 1.0})
    assert not ends(task, 137) and not reason(task)

"""The local runner: what is done is skipped, one failure hides nothing, a killed runner goes on where it stood."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from experiments.ablate.local.display import JobView, progress_table
from experiments.ablate.local.gpus import GpuPool
from experiments.ablate.local.process import Child
from experiments.ablate.local.runner import InterruptedRunError, run_jobs, write_run_files
from experiments.runs.state import DONE, FAILED, INTERRUPTED, NOT_RUN, RUNNING, CellState, eval_folder, read_state
from tests.experiments.ablate.support import REPOSITORY, Job, calls, fake_command, fake_job


def run(jobs: list[Job], terminal: bool = False) -> tuple[list[JobView], str]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160)
    return run_jobs(jobs, fake_command, console, poll_seconds=0.02), out.getvalue()


def state_of(job: Job) -> CellState:
    return read_state(job.run_dir, job.protocol_hash)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 8
    while not path.is_file():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def test_jobs_run_once_however_often_they_are_asked_for(tmp_path: Path) -> None:
    jobs = [fake_job(tmp_path, "a"), fake_job(tmp_path, "b")]
    assert [view.state for view in run(jobs)[0]] == [DONE, DONE]
    views, shown = run(jobs)
    assert [view.state for view in views] == [DONE, DONE] and [calls(job) for job in jobs] == [1, 1]
    assert "2 to do, 2 of them done already" in shown


def test_a_failing_cell_is_listed_with_its_last_lines_and_the_others_finish(tmp_path: Path) -> None:
    jobs = [fake_job(tmp_path, "a"), fake_job(tmp_path, "b", mode="crash"), fake_job(tmp_path, "c")]
    views, shown = run(jobs)
    assert [view.state for view in views] == [DONE, FAILED, DONE]
    assert "exit code 1" in views[1].note and "ZeroDivisionError: a step went wrong" in views[1].note
    assert "about to divide" in shown and "[b] failed" in shown
    state = state_of(jobs[1])
    assert state.state == FAILED and "a step went wrong" in state.reason


def test_a_failed_cell_is_tried_again_and_its_failure_forgotten(tmp_path: Path) -> None:
    run([fake_job(tmp_path, "a", mode="crash")])
    views, _ = run([fake_job(tmp_path, "a")])
    assert views[0].state == DONE and state_of(views[0].job).state == DONE
    assert not (eval_folder(views[0].job.run_dir, views[0].job.protocol_hash) / "failure.json").exists()


def test_only_the_last_attempts_lines_are_shown(tmp_path: Path) -> None:
    run([fake_job(tmp_path, "a", mode="crash")])
    views, _ = run([fake_job(tmp_path, "a", mode="silent")])
    assert views[0].state == FAILED and views[0].note == "ended without writing metrics.json"


def test_a_killed_child_is_a_failure_with_its_signal(tmp_path: Path) -> None:
    job = fake_job(tmp_path, "a", mode="hang")

    def kill() -> None:
        wait_for(job.run_dir / "progress.json")
        os.kill(json.loads((job.run_dir / "run.json").read_text())["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    views, _ = run([job, fake_job(tmp_path, "b")])
    killer.join()
    assert [view.state for view in views] == [FAILED, DONE] and "SIGKILL" in views[0].note


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    job = fake_job(tmp_path, "a", mode="hang")
    write_run_files(job)
    holder = subprocess.Popen(fake_command(job), stdout=subprocess.DEVNULL)
    try:
        wait_for(job.run_dir / "progress.json")
        assert state_of(job).state == RUNNING
        views, _ = run([job, fake_job(tmp_path, "b")])
    finally:
        holder.kill()
        holder.wait()
    assert [view.state for view in views] == [RUNNING, DONE]
    assert views[0].note == "this run is held by process 1 on nowhere"
    assert state_of(job).state == INTERRUPTED  # the holder was killed: its lock is gone, its progress still fresh


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_child_and_keeps_what_is_done(tmp_path: Path, number: int, code: int) -> None:
    jobs = [fake_job(tmp_path, "a"), fake_job(tmp_path, "b", mode="hang"), fake_job(tmp_path, "c")]
    threading.Thread(target=lambda: (wait_for(jobs[1].run_dir / "progress.json"), os.kill(os.getpid(), number))).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError, match="1 of 3 are done and kept") as raised:
        run(jobs)
    assert raised.value.exit_code == code and signal.getsignal(signal.SIGTERM) == before
    assert [view.state for view in raised.value.views] == [DONE, INTERRUPTED, NOT_RUN]
    assert state_of(jobs[1]).state == INTERRUPTED  # so the child is gone: its lock is free


RUNNER = """
    import sys
    from pathlib import Path
    from rich.console import Console
    from experiments.ablate.local.runner import run_jobs
    from tests.experiments.ablate.support import fake_command, fake_job
    runs = Path(sys.argv[1])
    jobs = [fake_job(runs, "a"), fake_job(runs, "b", mode="hang"), fake_job(runs, "c")]
    run_jobs(jobs, fake_command, Console(), poll_seconds=0.02)
"""


def test_after_kill_9_of_the_runner_only_the_rest_runs(tmp_path: Path) -> None:
    jobs = [fake_job(tmp_path, "a"), fake_job(tmp_path, "b"), fake_job(tmp_path, "c")]
    command = [sys.executable, "-c", textwrap.dedent(RUNNER), str(tmp_path)]
    runner = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    wait_for(jobs[1].run_dir / "progress.json")
    runner.kill()
    runner.wait()
    deadline = time.monotonic() + 5
    while state_of(jobs[1]).state == RUNNING:  # the orphan sees that its parent is gone
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [state_of(job).state for job in jobs] == [DONE, INTERRUPTED, NOT_RUN]
    assert [view.state for view in run(jobs)[0]] == [DONE, DONE, DONE]
    assert [calls(job) for job in jobs] == [1, 2, 1]


def test_a_folder_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "Fake-a-s0").write_text("a file where a folder should be")
    views, _ = run([fake_job(tmp_path, "a"), fake_job(tmp_path, "b")])
    assert [view.state for view in views] == [FAILED, DONE] and "Fake-a-s0" in views[0].note


def test_the_run_files_are_whole_and_left_alone_when_nothing_changed(tmp_path: Path) -> None:
    job = fake_job(tmp_path, "a")
    write_run_files(job)
    files = sorted(path for path in job.run_dir.rglob("*") if path.is_file())
    assert [path.name for path in files] == ["config.yaml", "protocol.json"]
    before = [path.stat().st_ino for path in files]
    write_run_files(job)
    assert [path.stat().st_ino for path in files] == before


def test_the_live_table_shows_progress_and_what_is_left(tmp_path: Path) -> None:
    _, shown = run([fake_job(tmp_path, "a", steps=6, seconds=0.08)], terminal=True)
    for part in ("training", "/6", "1 of 1 done"):
        assert part in shown
    view = JobView(fake_job(tmp_path, "b"), RUNNING, {"phase": "training", "step": 3, "max_steps": 6, "loss": 0.25})
    view.elapsed, view.remaining = 61.0, 3723.0
    out = io.StringIO()
    Console(file=out, width=160).print(progress_table([view]))
    for part in ("training 3/6", "0.2500", "1:01", "1:02:03", "0 of 1 done"):
        assert part in out.getvalue()


def test_a_plain_log_says_each_change_once(tmp_path: Path) -> None:
    _, shown = run([fake_job(tmp_path, "a", steps=10, seconds=0.03)])
    lines = [line for line in shown.splitlines() if line.startswith("[a]")]
    assert len(lines) == 3  # running; running, training i/10; done
    assert lines[1].startswith("[a] running, training ") and lines[2].startswith("[a] done")


def span(job: Job) -> tuple[float, float]:
    """When a job's process began and ended, by the times of its files."""
    return (job.run_dir / "calls.txt").stat().st_mtime, (job.run_dir / "progress.json").stat().st_mtime


@pytest.mark.parametrize(("parallel", "together"), [(1, False), (2, True)])
def test_several_at_a_time(tmp_path: Path, parallel: int, together: bool) -> None:
    jobs = [fake_job(tmp_path, name, steps=5, seconds=0.15) for name in "ab"]
    views = run_jobs(jobs, fake_command, Console(file=io.StringIO()), 0.02, parallel)
    assert [view.state for view in views] == [DONE, DONE]
    (_, first_end), (second_start, _) = span(jobs[0]), span(jobs[1])
    assert (second_start < first_end) == together


def test_what_needs_another_run_or_shares_one_waits_for_it(tmp_path: Path) -> None:
    first = fake_job(tmp_path, "a", steps=3, seconds=0.1)
    same = dataclasses.replace(first, protocol_hash="other")  # the same run under another protocol
    needing = dataclasses.replace(fake_job(tmp_path, "b"), needs={"a": first.run_dir})
    views = run_jobs([needing, first, same], fake_command, Console(file=io.StringIO()), 0.02, parallel=3)
    # The fake run leaves no checkpoint: so `b` waited until nobody was left who would make one.
    assert [view.state for view in views] == [NOT_RUN, DONE, DONE] and "needs a" in views[0].note
    assert (first.run_dir / "calls.txt").read_text().split() == [first.protocol_hash, "other"]


def test_an_interrupt_ends_all_children(tmp_path: Path) -> None:
    jobs = [fake_job(tmp_path, name, mode="hang") for name in "ab"]

    def interrupt() -> None:
        for job in jobs:
            wait_for(job.run_dir / "progress.json")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(InterruptedRunError) as raised:
        run_jobs(jobs, fake_command, Console(file=io.StringIO()), 0.02, parallel=2)
    assert [view.state for view in raised.value.views] == [INTERRUPTED, INTERRUPTED]
    assert [state_of(job).state for job in jobs] == [INTERRUPTED, INTERRUPTED]


def test_each_job_sees_gpus_of_its_own(tmp_path: Path) -> None:
    pool = GpuPool(["4", "7", "9"])
    assert pool.take(2) == ("4", "7") and pool.take(1) == ("9",)
    pool.give_back(("7",))
    assert pool.take(1) == ("7",)
    with pytest.raises(ValueError, match="wants 4 GPUs, this machine has 3"):
        pool.take(4)
    assert GpuPool(()).take(8) == ()
    script = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    assert Child([sys.executable, "-c", script], tmp_path, ("7", "9")).wait(10) == 0
    assert (tmp_path / "run.log").read_text() == "7,9\n"


def test_visible_gpus_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert GpuPool.visible().take(2) == ("3", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert GpuPool.visible().take(1) == ()


def test_less_than_one_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 job"):
        run_jobs([], fake_command, Console(file=io.StringIO()), parallel=0)

"""A process that is asked to stop: at once, or when it said it would by itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.runs.record import EXIT_HELD, held
from experiments.runs.stop import EXIT_STOPPED, SIGNALS, StopRequest


@pytest.fixture
def request_() -> StopRequest:
    return StopRequest()


@pytest.mark.parametrize("number", SIGNALS)
def test_at_once_unless_it_has_something_to_save(request_: StopRequest, number: signal.Signals) -> None:
    before = {name: signal.getsignal(name) for name in SIGNALS}
    try:
        request_.listen()
        request_.deferred = True
        os.kill(os.getpid(), number)
        assert request_.made
        request_.deferred = False
        with pytest.raises(SystemExit) as raised:
            os.kill(os.getpid(), number)
            time.sleep(1)
        assert raised.value.code == EXIT_STOPPED
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def test_a_task_listens_before_its_slow_imports() -> None:
    code = "import sys, experiments.ablate.slurm.task\n"
    code += "loaded = {'torch', 'lightning'} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


def test_only_the_first_rank_takes_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(tmp_path):
        with pytest.raises(SystemExit) as raised, held(tmp_path):
            pass
        assert raised.value.code == EXIT_HELD
        monkeypatch.setenv("LOCAL_RANK", "1")
        with held(tmp_path):  # the same job's second process
            pass
        monkeypatch.delenv("LOCAL_RANK")
        with pytest.raises(SystemExit), held(tmp_path):  # and it let nobody else in
            pass


def test_a_lock_may_be_waited_for(tmp_path: Path) -> None:
    hold = "import fcntl, time, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True)"
    code = f"{hold}; time.sleep(0.6)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with held(tmp_path, patience=30.0):
            assert holder.wait(5) == 0

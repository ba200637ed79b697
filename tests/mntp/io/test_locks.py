"""Locks between real processes: one holder, killed holders, file systems without flock."""

import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mntp.io import locks
from mntp.io.locks import claimed, is_claimed, locked

HOLD = """
import sys, time
from pathlib import Path
from mntp.io import locks
if len(sys.argv) > 2:
    from tests.mntp.io.test_locks import without_flock
    without_flock(float(sys.argv[2]))
with locks.claimed(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def without_flock(lease_seconds: float) -> None:
    """Let flock fail as on a file system that lacks it."""

    def acquire(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    FileLock.acquire = acquire
    locks.LEASE_SECONDS = lease_seconds


def hold(path: Path, *words: str) -> subprocess.Popen[str]:
    """Hold a lock in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "True\n"
    return process


def test_one_process_holds_it_and_a_killed_one_loses_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("content stays")
    assert not is_claimed(path)
    with hold(path) as holder:
        assert is_claimed(path)
        with claimed(path) as mine:
            assert not mine
        holder.kill()
    assert not is_claimed(path)
    with claimed(path) as mine:
        assert mine
        with claimed(path, patience=0.1) as again:
            assert not again
    assert path.read_text() == "content stays"
    assert not is_claimed(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_waiter_gets_it_after_the_holder(tmp_path: Path) -> None:
    folder = tmp_path / "parents" / "are made"
    with locked(folder):
        pass
    with hold(folder.with_name(f".{folder.name}.lock")) as holder:
        began = time.monotonic()
        with claimed(folder.with_name(f".{folder.name}.lock"), patience=0.3) as mine:
            assert not mine
        assert time.monotonic() - began >= 0.3
        holder.kill()
        with locked(folder):
            pass


def test_without_flock_a_killed_holder_loses_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    monkeypatch.setattr(FileLock, "acquire", FileLock.acquire)
    monkeypatch.setattr(locks, "LEASE_SECONDS", locks.LEASE_SECONDS)
    without_flock(1.5)
    with claimed(path) as mine, claimed(path) as again:
        assert (mine, again) == (True, False)
    with hold(path, "1.5") as holder:
        with claimed(path, patience=3.0) as mine:  # for twice the lease: the holder refreshes it
            assert not mine
        holder.kill()
        holder.wait()
        with claimed(path, patience=10.0) as mine:
            assert mine


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), claimed(tmp_path / "file" / "lock"):
        pass

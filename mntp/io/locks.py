"""Locks between processes: one writer of a folder, one worker on a piece, one process of a run.

A lock is a file, and only whole locks exist: no shared ones. What holds where:

- Local disks, NFS since Linux 2.6.12, and Lustre mounted with `flock`: the lock is the system's own (`flock`, by
  `filelock.FileLock`). The system takes it back from a killed process at once. The file stays, empty, after release:
  removing it would let two waiters lock two different files.
- File systems without `flock` (the call fails with ENOSYS, ENOTSUP or ENOLCK): the lock is a lease
  (`filelock.SoftFileLease`), a file `<name>.lease` that a thread of the holder refreshes. When a holder is killed, or
  its machine is gone, others take the lease after `LEASE_SECONDS`. A holder that is paused for longer can lose it
  while it works; what is written under these locks is therefore written by atomic renames.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

LEASE_SECONDS = 60.0
POLL_SECONDS = 0.05
FOREVER = -1.0
# Someone who only looks whether a lock is held has it for an instant.
GLANCE_SECONDS = 0.1
_NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the only right to write `folder`, after waiting for whoever holds it.

    Args:
        folder: what is to be written. The lock is the file `.<name>.lock` beside it.

    Raises:
        OSError: the parent folder can't be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with claimed(folder.with_name(f".{folder.name}.lock"), FOREVER):
        yield


@contextlib.contextmanager
def claimed(path: Path, patience: float = 0.0) -> Iterator[bool]:
    """Try to hold the lock file `path`.

    Args:
        path: in an existing folder; its content stays as it is.
        patience: seconds to wait for another holder; `FOREVER` waits until it is free.

    Yields:
        Whether it is held.

    Raises:
        OSError: the folder can't be written.
    """
    lock = _acquire(path, patience)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


def is_claimed(path: Path) -> bool:
    """Whether a process holds the lock file `path`; one that does not exist is held by nobody.

    Raises:
        OSError: the file can't be locked by this user.
    """
    if not path.is_file():
        return False
    with claimed(path, GLANCE_SECONDS) as free:
        return not free


def _acquire(path: Path, patience: float) -> BaseFileLock | None:
    """The lock, held; None where another process keeps it."""
    try:
        lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
        try:
            lock.acquire(patience, POLL_SECONDS)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            lock = SoftFileLease(path.with_name(f"{path.name}.lease"), lease_duration=LEASE_SECONDS)
            lock.acquire(patience, POLL_SECONDS)
    except Timeout:
        return None
    return lock

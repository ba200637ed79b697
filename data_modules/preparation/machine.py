"""The machine of a preparation: number of this process, device, threads, memory."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

import torch

_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


def worker_number(number: int, processes: int) -> tuple[int, int]:
    """Number of this process among all processes of a SLURM array, and how many there are."""
    task, first = int(os.environ.get("SLURM_ARRAY_TASK_ID", 0)), int(os.environ.get("SLURM_ARRAY_TASK_MIN", 0))
    tasks = max(1, int(os.environ.get("SLURM_ARRAY_TASK_COUNT", 1)))
    return (task - first) % tasks * processes + number, tasks * processes


def torch_device(kind: str, number: int) -> torch.device:
    """The device of a helper process: GPUs are dealt out in turn."""
    return torch.device(kind, number % torch.cuda.device_count()) if kind == "cuda" else torch.device(kind)


@contextlib.contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Compute on `number` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn an error about memory into one that names where it ran out.

    Raises:
        OSError: with errno ENOMEM.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On the CPU, torch raises a plain RuntimeError.
        if isinstance(error, RuntimeError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise OSError(
            errno.ENOMEM, f"out of memory at {what}; what was done is kept: use fewer processes, or leave it out"
        ) from error

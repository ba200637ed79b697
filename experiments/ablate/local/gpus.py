"""Which GPUs a job on this machine may see, so that several jobs don't all take the first one."""

import os
import subprocess
from collections.abc import Sequence


class GpuPool:
    """Gives each job the least used GPUs; with more jobs than GPUs they share.

    Args:
        gpus: their names, as in CUDA_VISIBLE_DEVICES; empty where there are none.
    """

    def __init__(self, gpus: Sequence[str]) -> None:
        self._jobs = dict.fromkeys(gpus, 0)

    @classmethod
    def visible(cls) -> "GpuPool":
        """Return the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES if it is set, else all."""
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        if named is not None:
            return cls([word.strip() for word in named.split(",") if word.strip()])
        try:
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            return cls(())
        return cls([str(index) for index, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")])

    def take(self, count: int) -> tuple[str, ...]:
        """Return `count` GPUs, the least used first; none where there are none.

        Raises:
            ValueError: the job wants more than there are.
        """
        if self._jobs and count > len(self._jobs):
            raise ValueError(f"the job wants {count} GPUs, this machine has {len(self._jobs)}: set trainer.devices")
        chosen = sorted(self._jobs, key=self._jobs.__getitem__)[:count]  # stable: in their order among equals
        for gpu in chosen:
            self._jobs[gpu] += 1
        return tuple(chosen)

    def give_back(self, gpus: Sequence[str]) -> None:
        """Take back what a job had."""
        for gpu in gpus:
            self._jobs[gpu] -= 1

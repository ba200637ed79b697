"""Checkpoints that are whole or absent."""

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from mntp.io.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name in its own folder, then renames it.

    Lightning's own writes it elsewhere and moves it, which is a plain copy between file systems: killed or out of
    space in the middle, it leaves half a file in the place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to the local `path`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """Read a checkpoint of tensors and plain values.

        Raises:
            ValueError: the file is missing, truncated or no checkpoint; the message names it.
        """
        try:
            return super().load_checkpoint(path, map_location, weights_only)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path}: can't be read as a checkpoint ({reason}); choose or train another") from error

"""Trained systems from checkpoints of any of them."""

import pickle
from pathlib import Path

import torch

from mntp.pretrained.checkpoints import load_strictly
from mntp.systems.base import AudioSystem
from mntp.systems.registry import CLASS_KEY, INSTANTIATOR_KEY, build_system


def load_system(path: Path) -> AudioSystem:
    """Rebuild a trained system from a checkpoint, whichever class it is of, in evaluation mode on the CPU.

    Opening a checkpoint never runs code that it names: classes of the user's own package are found only where that
    package is imported already or was allowed (see `mntp.registry`).

    Raises:
        ValueError: the file is missing, is no checkpoint, is one of another program, or names classes of a package
            that is not allowed.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        arguments = dict(checkpoint["hyper_parameters"])
        class_path, state = str(arguments.pop(CLASS_KEY)), checkpoint["state_dict"]
        arguments.pop(INSTANTIATOR_KEY)
    except (RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a checkpoint of a system of this suite ({reason})") from error
    try:
        system = build_system(class_path, arguments)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    system.on_load_checkpoint(checkpoint)
    load_strictly(system, state, path)
    return system.eval()


def find_checkpoint(path: Path) -> Path:
    """The file itself, or the final checkpoint of a run's folder, or else the newest one below the folder.

    Raises:
        ValueError: there is none.
    """
    if path.is_file():
        return path
    final = path / "checkpoints" / "final.ckpt"
    if final.is_file():
        return final
    found = sorted(path.rglob("*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise ValueError(f"{path}: no checkpoint there; expected a .ckpt file or a run's folder")
    return found[-1]

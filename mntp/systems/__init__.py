"""Systems: the LightningModules of the suite."""

import pickle
from pathlib import Path

import torch

from mntp.systems.audio_mar import AudioMAR
from mntp.systems.audio_mntp import AudioMNTP
from mntp.systems.audio_ntp import AudioNTP
from mntp.systems.base import AudioSystem, Pairs

SYSTEMS: dict[str, type[AudioSystem]] = {cls.__name__: cls for cls in (AudioNTP, AudioMNTP, AudioMAR)}


def load_system(path: Path) -> AudioSystem:
    """Rebuild a trained system from a checkpoint, whichever class it is of, in evaluation mode on the CPU.

    Raises:
        ValueError: the file is missing, is no checkpoint, or is one of another program.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        name = checkpoint["hyper_parameters"]["_class_path"].rpartition(".")[-1]
        system = SYSTEMS[name].load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a checkpoint of this suite's systems {sorted(SYSTEMS)} ({reason})") from error
    return system.eval()


__all__ = ["SYSTEMS", "AudioMAR", "AudioMNTP", "AudioNTP", "AudioSystem", "Pairs", "load_system"]

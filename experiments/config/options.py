"""Options that several commands share. `experiments.main` makes an option of each field."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Base of the groups of options."""


@dataclass(frozen=True)
class JudgeOptions(Options):
    """Where the networks lie that score sound.

    Args:
        judges: folder of the embedded judges, and of cached embeddings.
        weights: folder of public checkpoints, for scales that are judged by them.
    """

    judges: Path = Path("data/judges")
    weights: Path = Path("weights")

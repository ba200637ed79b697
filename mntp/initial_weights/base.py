"""What it means to start from trained weights: which tensors are taken, which stay behind and why."""

import argparse
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mntp.pretrained.checkpoints import read_checkpoint


@dataclass(frozen=True)
class Selection:
    """What a file has for a system, before any shape is compared.

    Attributes:
        source: the class, the file and which of its weights.
        taken: tensors of the file by their names in the system.
        left: names in the file that are not taken, and why.
    """

    source: str
    taken: Mapping[str, Tensor] = field(repr=False)
    left: Mapping[str, str]


@dataclass(frozen=True)
class Transfer:
    """What a system has taken from a file.

    Attributes:
        source: the class, the file and which of its weights.
        taken: names in the system that hold the file's values now.
        left: names in the file that were not taken, and why.
        own: names in the system that keep their own initialisation.
    """

    source: str
    taken: tuple[str, ...]
    left: Mapping[str, str]
    own: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """The same by parts, as JSON values: tensors taken, left and kept for each part, and the reasons."""
        reasons = {part_of(name): reason for name, reason in self.left.items()}
        left = {part: f"{count}: {reasons[part]}" for part, count in _counts(self.left).items()}
        return {"source": self.source, "taken": _counts(self.taken), "left": left, "own": _counts(self.own)}

    def __str__(self) -> str:
        """A few lines: how many tensors of which part, and why the others were left."""
        summary = self.summary()
        lines = [f"initialised from {self.source}"]
        for title, key in (("taken", "taken"), ("left in the file", "left"), ("own initialisation", "own")):
            count = len(getattr(self, key))
            lines.append(f"  {title}: {count} tensor{'' if count == 1 else 's'}")
            lines += [f"    {part} {number}" for part, number in summary[key].items()]
        return "\n".join(lines)


class InitialWeights(ABC):
    """A file of trained weights that a system can start from.

    Args:
        path: the file; looked at only when the weights are applied.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def checkpoint(self) -> dict[str, Any]:
        """Read the file's mapping; of other objects only the `argparse.Namespace` of MAR's options is let in.

        Raises:
            ValueError: as `read_checkpoint`.
        """
        absent = "no such file of initial weights; set init: null to start from random ones"
        return read_checkpoint(self.path, safe=[argparse.Namespace], absent=absent)

    @abstractmethod
    def select(self, system: L.LightningModule) -> Selection:
        """Read the file and choose what `system` is to take.

        Raises:
            ValueError: the file is missing, of another layout, or of a model that doesn't fit.
        """

    def apply(self, system: L.LightningModule) -> Transfer:
        """Copy the file's weights into `system`, whose own dtype and device stay as they are.

        Nothing is copied unless everything fits.

        Raises:
            ValueError: as in `select`, or a tensor has another shape than in the model.
        """
        selection, own = self.select(system), system.state_dict()
        for name, tensor in selection.taken.items():
            if tensor.shape != own[name].shape:
                raise ValueError(
                    f"{self.path}: {name} is {list(tensor.shape)} in the file and {list(own[name].shape)} in the "
                    "model: give the model the file's sizes, take a file of the model's, or set init: null"
                )
        with torch.no_grad():
            for name, tensor in selection.taken.items():
                own[name].copy_(tensor)
        return Transfer(
            source=selection.source,
            taken=tuple(name for name in own if name in selection.taken),
            left=selection.left,
            own=tuple(name for name in own if name not in selection.taken),
        )


def part_of(name: str) -> str:
    """The part of a model that a tensor belongs to: the first of its dotted names, two inside the backbone."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first == "backbone" else first


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(part_of(name) for name in names))

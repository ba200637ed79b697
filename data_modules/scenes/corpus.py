"""The embedded corpus: how many scenes of which length, from which seed."""

from dataclasses import asdict, dataclass
from typing import Any

from data_modules.scenes.scene import SPLITS, Scene, num_samples, synthesise

VERSION = 1
"""To be raised with every change of the synthesiser: stores and judges made from another version are not reused."""


@dataclass(frozen=True)
class EmbeddedCorpus:
    """Captioned scenes that are synthesised when they are asked for.

    Attributes:
        num_train: scenes of the training split.
        num_val: scenes of the validation split.
        num_test: scenes of the test split.
        seconds: length of every scene, a multiple of 0.16.
        seed: of all of it; same seed, same bytes.
    """

    num_train: int = 3000
    num_val: int = 256
    num_test: int = 256
    seconds: float = 2.56
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: a number is out of range; the message names it.
        """
        num_samples(self.seconds)
        for name in ("num_train", "num_val", "num_test", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} of the embedded corpus is {getattr(self, name)}; expected at least 0")

    def splits(self) -> dict[str, int]:
        """How many scenes each split has."""
        return {"train": self.num_train, "val": self.num_val, "test": self.num_test}

    def scene(self, split: str, index: int) -> Scene:
        """Synthesise scene `index` of a split.

        Raises:
            ValueError: there is no such split, or no such scene in it.
        """
        count = self.splits().get(split)
        if count is None:
            raise ValueError(f"unknown split {split!r} of the embedded corpus; known: {', '.join(SPLITS)}")
        if not 0 <= index < count:
            raise ValueError(f"scene {index} of split {split!r}: it has scenes 0 to {count - 1}")
        return synthesise(self.seed, split, index, self.seconds)

    def settings(self) -> dict[str, Any]:
        """What makes the scenes: the constructor's arguments and the synthesiser's version, as plain JSON values."""
        return {**asdict(self), "version": VERSION}

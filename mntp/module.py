"""What the command line, the callbacks, the run records and the matrix ask of a model and of its data."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import lightning as L


@dataclass(frozen=True)
class HeldOutMetric:
    """The held-out measure that tables show of a model.

    Attributes:
        name: under which `validation_step` returns it.
        digits: after the decimal point.
        better: -1 where lower is better, 1 where higher is.
    """

    name: str
    digits: int = 4
    better: int = -1


class SuiteModule(L.LightningModule, ABC):
    """A LightningModule that `lightning fit`, the callbacks, the run records and the matrix accept.

    A subclass takes `seed` as an argument of its constructor, because the matrix sets `model.init_args.seed`, and draws
    initial weights and training noise from it alone. Optimisation is the subclass's own business; it may be manual,
    with several optimisers. Lightning then counts each optimiser's steps, and so does `trainer.max_steps`.

    `validation_step` measures clips one by one. It returns `rows` [B] int64, the clips' rows in the data, and for each
    held-out measure [2, B] float64: each clip's sum of the measure and its number of terms. `HeldOutLosses` collects
    these, and a scoring takes the mean over all terms with an interval over clips.
    """

    @property
    @abstractmethod
    def held_out_metric(self) -> HeldOutMetric:
        """The held-out measure that stands in tables; models that are compared by it give it one name."""

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of parameters for the run record: of the whole model, and of its head where it has one."""
        head = getattr(self, "head", None)
        return {
            "num_parameters": sum(p.numel() for p in self.parameters()),
            "num_head_parameters": 0 if head is None else sum(p.numel() for p in head.parameters()),
        }


class SuiteData(Protocol):
    """What the command line and the matrix ask of a LightningDataModule.

    Its constructor takes `seed`, which the matrix sets, for the order of training clips.
    """

    batch_size: int

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the prepared data; part of the train hash and of the protocol."""
        ...

    def prepare_data(self) -> None:
        """Prepare the data where they are missing, and check them."""
        ...

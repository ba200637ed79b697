"""A job: one scoring of one run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config.nodes import look_up
from experiments.runs.state import eval_folder
from experiments.scoring.protocol import Protocol


@dataclass(frozen=True)
class Job:
    """One scoring of one run, and all cells that it answers.

    Attributes:
        labels: the cells' labels, `3G`, `8C`.
        run_dir: the run's folder.
        config: the resolved configuration.
        protocol: how it is scored.
        protocol_hash: the protocol's hash.
        needs: folders of the runs that must be trained before it starts, by label.
    """

    labels: tuple[str, ...]
    run_dir: Path
    config: dict[str, Any]
    protocol: Protocol
    protocol_hash: str
    needs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def scoring(self) -> Path:
        """The scoring's folder."""
        return eval_folder(self.run_dir, self.protocol_hash)

    @property
    def scores_model(self) -> bool:
        """Whether the trained model is scored, and not a reference."""
        return bool(self.protocol["generation"]["source"] == "model")

    @property
    def trains(self) -> bool:
        """Whether the run takes any training steps (the untrained model takes none)."""
        return look_up(self.config, "trainer.max_steps") != 0

    @property
    def num_devices(self) -> int:
        """GPUs that it takes on one machine, if there are any; one where the config leaves it open."""
        devices = look_up(self.config, "trainer.devices")
        return len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 1

"""How long a training step takes here: a few steps of a config, timed, with nothing kept of them."""

import tempfile
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from experiments.ablate.plan.cost import StepCost
from experiments.ablate.plan.identity import ONLOOKERS
from experiments.config.lightning_cli import SuiteCLI
from experiments.config.nodes import class_name

NUM_WARM_UP, NUM_STEPS = 2, 5


class _StepClock(Callback):
    """Notes when each optimiser step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        if trainer.global_step > len(self.ends):
            self.ends.append(time.monotonic())


def measure_steps(config: dict[str, Any]) -> StepCost:
    """Time training steps of a resolved config on one device of this machine, from random weights.

    Args:
        config: what it writes, logs and validates is left out. With several devices, the same batch on each is taken
            to last as long: what they say to each other isn't counted.

    Returns:
        Mean seconds of 5 steps after 2 others, for all devices of the config.

    Raises:
        ValueError: the config can't be trained here.
    """
    trainer = config["trainer"]
    devices = [trainer[key] if isinstance(trainer[key], int) else 1 for key in ("devices", "num_nodes")]
    clock = _StepClock()
    with tempfile.TemporaryDirectory() as folder:
        alone = {
            "devices": 1, "num_nodes": 1, "strategy": "auto", "max_steps": NUM_WARM_UP + NUM_STEPS, "logger": False,
            "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
            "limit_val_batches": 0, "num_sanity_val_steps": 0, "default_root_dir": folder,
            "callbacks": [part for part in trainer["callbacks"] or [] if class_name(part) not in ONLOOKERS],
            "plugins": None,
        }  # fmt: skip
        placed = {**config, "trainer": {**trainer, **alone}, "init": None}
        suite = SuiteCLI(placed, run=False, more_callbacks=[clock])
        suite.trainer.fit(suite.model, datamodule=suite.datamodule)
    on_gpu = suite.trainer.strategy.root_device.type == "cuda"
    taken = (clock.ends[-1] - clock.ends[NUM_WARM_UP - 1]) / NUM_STEPS
    return StepCost(taken, devices[0] * devices[1] if on_gpu else 0, f"measured here over {NUM_STEPS} steps")

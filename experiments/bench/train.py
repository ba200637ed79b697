"""`mntp bench train`: a config's training step beside its plain variant, with its FLOPs and the machine's ceiling."""

import contextlib
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._dynamo.utils import counters

from callbacks import Compile
from experiments.bench.common import (
    alternate,
    best_device,
    machine,
    matrix_rate,
    median_ratio,
    medians,
    peak_memory,
    print_line,
    random_batch,
)
from experiments.bench.flops import count_flops
from experiments.config.nodes import class_name
from experiments.config.resolve import build_model, load_config, resolve
from mntp.batch import TokenBatch
from mntp.seeding import make_generator
from mntp.systems import AudioSystem
from mntp.systems.optimisation import build_adamw

HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# What every variant is compared with: nothing compiled or filled up, float32 throughout, no fused update.
PLAIN: dict[str, Any] = {
    "model": {"init_args": {"optimisation": {"fused": False}}},
    "trainer": {"precision": "32-true", "callbacks": []},
}


class TrainingStep:
    """Training steps of a resolved config's model from random weights, on random clips, without a trainer.

    A step is the loss, its gradient, clipped, and the optimiser's update; the average of the weights and all writing
    are left out, and under `16-mixed` the loss's scale. Step `turn` has the mask ratio of a training's.

    Args:
        config: the resolved config.
        batch_size: clips of a step.
    """

    def __init__(self, config: dict[str, Any], batch_size: int) -> None:
        trainer = config["trainer"]
        self.device = best_device()
        self.dtype = HALVES.get(trainer["precision"], torch.float32)
        model = build_model(config)
        if not isinstance(model, AudioSystem):
            raise ValueError(f"{type(model).__name__} is no AudioSystem; only their training steps are measured")
        self.system = model.to(self.device).train()
        for callback in trainer["callbacks"] or []:
            if class_name(callback) == "Compile":
                Compile(**callback["init_args"]).apply(self.system)
        self._clip = trainer["gradient_clip_val"]
        self._optimizer = build_adamw(self.system, self.system.optimisation)
        self._batch = self.clips(batch_size)

    def __call__(self, turn: int) -> None:
        """Take one step."""
        self._optimizer.zero_grad()
        self.backward(turn, self._batch)
        if self._clip:
            nn.utils.clip_grad_norm_(self.system.parameters(), self._clip)
        self._optimizer.step()

    def clips(self, number: int) -> TokenBatch:
        """Random clips of the model's shapes, on its device."""
        system = self.system
        clips = random_batch(system.num_tokens, system.token_dim, system.hparams["streams"], number)
        return system.transfer_batch_to_device(clips, self.device, 0)

    def backward(self, turn: int, batch: TokenBatch) -> None:
        """Loss and gradient alone."""
        generator = make_generator(self.system.seed, "train", turn, device=self.device)
        half = torch.autocast(self.device.type, self.dtype) if self.dtype != torch.float32 else contextlib.nullcontext()
        with half:
            loss = self.system.loss(batch, self.ratio(turn), generator)
        loss.backward()

    def ratio(self, turn: int) -> float:
        """Masking ratio of a step, as a training draws it."""
        return self.system.draw_ratio(make_generator(self.system.seed, "ratio", turn))


def train(config: list[Path], batch_size: int | None = None, steps: int = 10) -> None:
    """Time training steps of a config against its plain variant in turns, and print one line of JSON.

    The plain variant is the same model in float32, with nothing compiled, filled up or fused. FLOPs are those of the
    plain variant's matrix products; the ceiling is the rate of large ones in the config's precision. Graphs counts
    what was compiled, up to the first timed step and in all.

    Args:
        config: config files; each is laid over those before it, as `lightning fit` does.
        batch_size: clips of a step; by default the config's.
        steps: timed steps of each variant, each at its own mask ratio.

    Raises:
        ValueError: a number is out of range, or the config is wrong.
    """
    layers = [load_config(path) for path in config]
    resolved = resolve(*layers)
    num_clips = resolved["data"]["batch_size"] if batch_size is None else batch_size
    if min(num_clips, steps) < 1:
        raise ValueError(f"got batch_size={num_clips}, steps={steps}; expected numbers above 0")
    counters.clear()
    step = TrainingStep(resolved, num_clips)
    turns = range(steps)
    memory = peak_memory(lambda: deque(map(step, turns), maxlen=0), step.device)
    graphs = counters["stats"]["unique_graphs"]
    plain = TrainingStep(resolve(*layers, PLAIN), num_clips)
    flops = [num_clips * count_flops(partial(plain.backward, turn, plain.clips(1))) for turn in turns]
    taken = alternate({"configured": step, "plain": plain}, step.device, steps)
    rate = sum(flops) / sum(taken["configured"])
    ceiling = matrix_rate(step.device, step.dtype)
    system = step.system
    print_line(
        "train",
        **machine(step.device),
        config=[str(path) for path in config],
        system=type(system).__name__,
        parameters=sum(p.numel() for p in system.parameters()),
        clip=[system.num_tokens, system.token_dim],
        precision=resolved["trainer"]["precision"] or "32-true",
        batch_size=num_clips,
        steps=steps,
        mean_ratio=sum(step.ratio(turn) for turn in turns) / steps,
        median_seconds=medians(taken),
        clips_per_second={name: num_clips * steps / sum(seconds) for name, seconds in taken.items()},
        speed_up=median_ratio(taken["plain"], taken["configured"]),
        flops_per_step=sum(flops) // steps,
        flops_per_second=rate,
        ceiling_flops_per_second=ceiling,
        fraction_of_ceiling=rate / ceiling,
        peak_memory_bytes=memory,
        graphs={"first": graphs, "all": counters["stats"]["unique_graphs"]},
    )

"""Compiled training by a backend that only counts: how few graphs, and that nothing else about a training changes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks import EMA, AtomicCheckpointIO, Compile, LastCheckpoint, SkipNonFinite
from mntp.masking import Uniform
from mntp.seeding import make_generator
from mntp.systems import AudioSystem
from tests.systems_support import N, tiny_batch, tiny_system

LAW = Uniform(0.0, 1.0)
GRAPHS = {"G": 4, "K": 4}  # of blocks and head: one for the first length, one for all others
pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # torch's own compiler
]


@pytest.fixture(autouse=True)
def graphs() -> Iterator[list[torch.fx.GraphModule]]:
    """What was compiled by the backend `counted`, which changes nothing."""
    made: list[torch.fx.GraphModule] = []

    def counted(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(counted, name="counted")
    yield made
    torch._dynamo.reset()
    del torch._dynamo.backends.registry._COMPILER_FNS["counted"]
    torch._dynamo.backends.registry._BACKENDS.pop("counted", None)


def losses(system: AudioSystem, steps: int = 14) -> list[float]:
    """Losses of training steps at many ratios, those that keep one token and all of them included."""
    ratios = [1.0, 0.0, *(LAW.sample(make_generator(step)) for step in range(steps - 2))]
    system.train()
    return [float(system.loss(tiny_batch(3), ratio, make_generator(0)).detach()) for ratio in ratios]


def gradient_of(system: AudioSystem) -> Tensor:
    system.zero_grad()
    system.loss(tiny_batch(3), 0.5, make_generator(0)).backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.flatten() for p in system.parameters() if p.grad is not None])


@pytest.mark.parametrize(("row", "recomputed"), [("G", False), ("G", True), ("K", False)])
def test_many_ratios_make_few_graphs_and_the_same_losses(
    row: str, recomputed: bool, graphs: list[torch.fx.GraphModule]
) -> None:
    system = tiny_system(row, mask_ratio=LAW)
    plain, gradient = losses(system), gradient_of(system)
    system.backbone.checkpoint_activations = recomputed
    Compile(bucket=4, backend="counted").apply(system)
    lengths = set()
    system.backbone.decoder_norm.register_forward_hook(
        lambda *seen: lengths.add(seen[1][0].shape[1] - system.backbone.prompt_length)
    )
    assert losses(system) == pytest.approx(plain, rel=1e-5)
    torch.testing.assert_close(gradient_of(system), gradient, rtol=1e-4, atol=1e-6)
    assert len(graphs) <= GRAPHS[row]
    assert lengths == ({N} if row == "K" else {4, 8, 12})


def test_a_graph_for_every_length_would_be_seen(graphs: list[torch.fx.GraphModule]) -> None:
    system = tiny_system("G", mask_ratio=LAW)
    for block in system.backbone.encoder_blocks:
        block.compile(backend="counted", dynamic=False)  # type: ignore[no-untyped-call]
    losses(system, 8)
    assert len(graphs) > 4


class Watch(Callback):
    """Weights after every step, and the graphs made during validation."""

    def __init__(self, graphs: list[torch.fx.GraphModule]) -> None:
        self.graphs = graphs
        self.weights: list[Tensor] = []
        self.validated: list[int] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.weights.append(nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone())

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = len(self.graphs)

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, *_: object) -> None:
        pl_module.generate(batch.text, seeds=range(len(batch.tokens)))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated.append(len(self.graphs) - self.before)


def last_of(folder: Path) -> Path:
    return folder / "last.ckpt"


def fit(folder: Path, watch: Watch, callbacks: list[Callback], max_steps: int, **arguments: Any) -> AudioSystem:
    """Train the same system on one batch again and again, from `last.ckpt` where there is one; step 2 is bad."""
    batches: Any = [tiny_batch(3) for _ in range(8)]
    if not last_of(folder).is_file():
        batches[2].tokens[0] = torch.inf
    system = tiny_system("G", mask_ratio=LAW)
    system.hparams.clear()  # no plain values, as those of a config are
    last = last_of(folder)
    L.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        gradient_clip_val=1.0,
        val_check_interval=4,
        num_sanity_val_steps=0,
        plugins=[AtomicCheckpointIO(), *arguments.pop("plugins", [])],
        callbacks=[*callbacks, SkipNonFinite(dirpath=folder), LastCheckpoint(folder), watch],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **arguments,
    ).fit(
        system,
        DataLoader(batches, batch_size=None),
        DataLoader(batches[:1], batch_size=None),
        ckpt_path=last if last.is_file() else None,
        weights_only=True,
    )
    return system


@pytest.mark.parametrize("first", ["EMA", "Compile"])
def test_in_a_training_it_changes_neither_numbers_nor_names_and_leaves_validation_alone(
    tmp_path: Path, graphs: list[torch.fx.GraphModule], first: str
) -> None:
    for folder in ("plain", "compiled"):
        (tmp_path / folder).mkdir()
    plain = Watch(graphs)
    fit(tmp_path / "plain", plain, [EMA(0.9)], 8)
    assert not graphs
    watch = Watch(graphs)
    more = [EMA(0.9), Compile(bucket=4, backend="counted")]
    system = fit(tmp_path / "compiled", watch, more if first == "EMA" else more[::-1], 8)
    assert 0 < len(graphs) <= GRAPHS["G"]
    assert not torch.equal(watch.weights[3], watch.weights[2])
    assert watch.validated == [0, 0]
    for one, other in zip(watch.weights, plain.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=5e-5)  # a step moves a weight by up to 1e-4
    assert torch.equal(watch.weights[2], watch.weights[1])  # the step that is not finite
    states = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("plain", "compiled")]
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    before = len(graphs)
    losses(system, 3)
    assert len(graphs) == before, "left as it was"
    assert all(module._compiled_call_impl is None for module in system.modules())


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before")  # equal batches
def test_a_resumed_training_ends_bit_for_bit_as_an_uninterrupted_one(
    tmp_path: Path, graphs: list[torch.fx.GraphModule]
) -> None:
    for folder in ("whole", "halves"):
        (tmp_path / folder).mkdir()
    whole, first, second = (Watch(graphs) for _ in range(3))
    final = fit(tmp_path / "whole", whole, [EMA(0.9), Compile(4, backend="counted")], 8)
    for watch, steps in ((first, 5), (second, 8)):
        torch._dynamo.reset()  # another process has other graphs
        resumed = fit(tmp_path / "halves", watch, [EMA(0.9), Compile(4, backend="counted")], steps)
    for one, other in zip(whole.weights, first.weights + second.weights, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(final.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_in_compiled_graphs_too_only_matrix_products_are_in_half_precision(
    tmp_path: Path, graphs: list[torch.fx.GraphModule]
) -> None:
    precision: Any = MixedPrecision("bf16-mixed", "cpu")
    fit(tmp_path, Watch(graphs), [Compile(4, backend="counted")], 6, plugins=[precision])
    dtypes: dict[str, set[torch.dtype]] = {}
    for graph in graphs:
        for node in graph.graph.nodes:
            if node.op == "call_function" and node.target in (nn.functional.linear, nn.functional.layer_norm):
                dtypes.setdefault(node.target.__name__, set()).add(node.meta["example_value"].dtype)
        names = {str(node.target): node for node in graph.graph.nodes if node.op == "placeholder"}
        if "L_t_" in names:  # the head's network
            dtypes.setdefault("noisy tokens", set()).add(names["L_x_"].meta["example_value"].dtype)
    assert dtypes == {"linear": {torch.bfloat16}, "layer_norm": {torch.float32}, "noisy tokens": {torch.float32}}


def test_what_can_not_be_done_is_said() -> None:
    with pytest.raises(ValueError, match="bucket must be at least 1 input, got 0"):
        Compile(bucket=0)

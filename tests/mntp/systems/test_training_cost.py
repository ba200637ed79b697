"""What makes training cheaper changes nothing: filled-up lengths, recomputed activations, the fused update."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mntp.backbones.blocks import Block
from mntp.masking import num_hidden_when_dropping
from mntp.seeding import make_generator
from mntp.systems import AudioMNTP, AudioNTP, AudioSystem
from mntp.systems.optimisation import Optimisation, build_adamw
from tests.systems_support import SIZES, N, tiny_batch, tiny_system


def loss_and_gradients(system: AudioSystem, ratio: float, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)  # dropout's
    system.zero_grad()
    loss = system.loss(tiny_batch(), ratio, make_generator(seed))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {name: p.grad.clone() for name, p in system.named_parameters() if p.grad is not None}


def assert_equal_to_rounding(system: AudioSystem, expected: tuple[Tensor, dict[str, Tensor]], ratio: float) -> None:
    loss, gradients = loss_and_gradients(system, ratio)
    torch.testing.assert_close(loss, expected[0], rtol=1e-12, atol=1e-12)
    assert gradients.keys() == expected[1].keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-10, atol=1e-12, msg=name)


def doubled(row: str, **arguments: Any) -> AudioSystem:
    """In float64, so that only rounding is let through."""
    return tiny_system(row, **arguments).double().train()


@pytest.fixture(autouse=True)
def double_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tiny_batch

    def batch(*arguments: Any) -> Any:
        made = plain(*arguments)
        made.tokens = made.tokens.double()
        for states in made.text.values():
            states.states = states.states.double()
        return made

    monkeypatch.setattr("tests.mntp.systems.test_training_cost.tiny_batch", batch)


@pytest.mark.parametrize("multiple", [5, 8, 32])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("row", ["A", "C", "E", "G", "I"])
def test_filled_up_lengths_give_the_same_loss_and_gradients(row: str, ratio: float, multiple: int) -> None:
    system = doubled(row)
    assert isinstance(system, AudioNTP)
    expected = loss_and_gradients(system, ratio)
    lengths = []
    system.backbone.register_forward_hook(lambda _, __, z: lengths.append(z.shape[1]))
    system.length_multiple = multiple
    assert_equal_to_rounding(system, expected, ratio)
    kept = N - num_hidden_when_dropping(ratio, N)
    needed = {"E": kept + 1, "G": kept, "I": kept}.get(row, N)
    assert lengths == [-(-needed // multiple) * multiple]


def test_filling_that_is_scored_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong variant: what fills up is taken for tokens of place 0."""
    system = doubled("G")
    assert isinstance(system, AudioMNTP)
    expected, _ = loss_and_gradients(system, 0.5)

    def task(tokens: Tensor, ratio: float, generator: torch.Generator) -> Any:
        made = AudioMNTP.task(system, tokens, ratio, generator)
        made.targets = torch.nn.functional.pad(made.targets, (0, 2))
        made.inputs = torch.nn.functional.pad(made.inputs, (0, 0, 0, 2))
        made.positions = torch.nn.functional.pad(made.positions, (0, 2))
        return made

    monkeypatch.setattr(system, "task", task)
    loss, _ = loss_and_gradients(system, 0.5)
    assert (loss - expected).abs() > 1e-3


def test_only_scored_rows_reach_the_head_and_validation_is_not_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    system = doubled("G")
    assert isinstance(system, AudioMNTP)
    system.length_multiple = 5
    rows, lengths = [], []
    loss = system.head.loss
    monkeypatch.setattr(system.head, "loss", lambda z, x, g, step: rows.append(len(z)) or loss(z, x, g, step))
    system.backbone.register_forward_hook(lambda _, __, z: lengths.append(z.shape[1]))
    loss_and_gradients(system, 0.5)
    system.eval().held_out_losses(tiny_batch())
    assert rows == [4 * 6] and lengths == [10, N]


@pytest.mark.parametrize("row", ["G", "K"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_activations_give_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, row: str, dropout: float
) -> None:
    monkeypatch.setitem(SIZES, "dropout", dropout)
    system = doubled(row)
    runs = []
    for block in system.modules():
        if isinstance(block, Block):
            block.register_forward_pre_hook(lambda *_: runs.append(1))
    expected = loss_and_gradients(system, 0.5)
    assert len(runs) == 2
    system.backbone.checkpoint_activations = True
    runs.clear()
    loss, gradients = loss_and_gradients(system, 0.5)
    assert len(runs) == 4, "each block once more for its gradient"
    assert torch.equal(loss, expected[0])
    assert all(torch.equal(gradients[name], expected[1][name]) for name in expected[1])
    if dropout:
        other = loss_and_gradients(system, 0.5, seed=1)[0]
        assert not torch.equal(other, loss)
    runs.clear()
    system.eval().held_out_losses(tiny_batch())
    assert len(runs) == 2, "only in training"


@pytest.mark.parametrize("fused", [None, True, False])
def test_the_fused_update_is_the_same_and_passes_over_a_skipped_step(fused: bool | None) -> None:
    systems = [tiny_system("G").double() for _ in range(2)]
    chosen = build_adamw(systems[0], Optimisation(fused=fused))
    assert chosen.defaults["fused"] == bool(fused), "by itself only on CUDA"
    for system, optimizer in zip(systems, (chosen, build_adamw(systems[1], Optimisation(fused=False))), strict=True):
        for step in range(4):
            loss_and_gradients(system, 0.5, seed=step)
            if step == 2:  # as SkipNonFinite does
                optimizer.zero_grad()
            optimizer.step()
    for one, other in zip(*(system.parameters() for system in systems), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert all(float(state["step"]) == 3 for state in chosen.state.values())

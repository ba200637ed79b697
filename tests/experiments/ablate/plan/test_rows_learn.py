"""Each row of Tables 3 and 8 and each other head, built from its own resolved config: what it sees, what learns."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.ablate.matrix.expand import expand
from experiments.ablate.matrix.load import load_matrix
from experiments.config.resolve import build_model, resolve
from mntp.batch import TextStates, TokenBatch
from mntp.masking import random_mask
from mntp.seeding import make_generator
from mntp.systems import SYSTEMS, AudioSystem, audio_mar, audio_mntp, audio_ntp
from tests.experiments.ablate.support import REPOSITORY

CELLS = {
    f"{cell.table} {cell.row.id}": cell.config
    for cell in expand(load_matrix(REPOSITORY / "ablations.yaml"), "smoke", [0])
    if cell.table in ("table3", "table8", "heads") and not cell.row.reference
}
B = 2


def build(label: str) -> AudioSystem:
    """The row's system at the smoke scale, in float64, its zero-initialised layers shaken so that nothing is inert."""
    system = build_model(resolve(CELLS[label])).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in system.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return system


def batch_for(system: AudioSystem) -> TokenBatch:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    text = {
        name: TextStates(normal(B, stream.max_length, stream.dim), torch.full((B,), stream.max_length))
        for name, stream in system.prompt.streams.items()
    }
    tokens = normal(B, system.num_tokens, system.token_dim)
    return TokenBatch(tokens, torch.ones(B, system.num_tokens).bool(), text, torch.arange(B), ["a", "b"])


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The masks that systems draw from here on."""
    drawn: list[Tensor] = []

    def remember(*arguments: Any) -> Tensor:
        drawn.append(random_mask(*arguments))
        return drawn[-1]

    for module in (audio_ntp, audio_mntp, audio_mar):
        monkeypatch.setattr(module, "random_mask", remember)
    return drawn


@pytest.mark.parametrize("label", CELLS)
def test_hidden_and_later_tokens_reach_no_context(label: str, masks: list[Tensor]) -> None:
    """By gradient, with the ratio that the row's own law draws; and all that may be seen is seen."""
    system = build(label)
    batch, bidirectional = batch_for(system), type(system) is SYSTEMS["AudioMAR"]
    tokens, prompt = batch.tokens.requires_grad_(), system.prompt(batch.text)
    ratio = system.draw_ratio(make_generator("ratio", label))
    pairs = system.pairs(tokens, prompt, ratio, make_generator("pairs", label))
    (mask,) = masks
    plain = label in ("table3 A", "table3 B")
    assert (ratio == 0) == plain and mask.any() == (not plain)

    def reached(choose: Callable[[Tensor], Tensor]) -> Tensor:
        (gradient,) = torch.autograd.grad(choose(pairs.z.square().sum(dim=-1)).sum(), tokens, retain_graph=True)
        return gradient.abs().sum(dim=-1) > 0

    seen = ~mask
    if bidirectional:
        assert torch.equal(reached(lambda z: z), seen)
        assert all(mask[clip, place] for clip in range(B) for place in pairs.positions[clip])
        return
    last = pairs.positions.amax(dim=1, keepdim=True)  # what is asked for last; no token at or behind it is needed
    assert torch.equal(reached(lambda z: z), seen & (torch.arange(system.num_tokens) < last))
    for context in range(0, pairs.positions.shape[1], 5):
        target = pairs.positions[:, context, None]
        before = seen & (torch.arange(system.num_tokens) < target)
        assert torch.equal(reached(lambda z, context=context: z[:, context]), before)  # type: ignore[misc]


@pytest.mark.parametrize("label", CELLS)
def test_every_parameter_of_every_row_learns(label: str) -> None:
    """Each gets a gradient, the prompts' and the fake prompt's included, from clips with and without their captions."""
    system = build(label)
    system.prompt_drop = 0.5
    batch = batch_for(system)
    for lengths in batch.text.values():
        lengths.lengths = torch.ones(B, dtype=torch.long)  # leaves slots to the padding vector
    for seed in range(8):
        system.loss(batch, 0.5, make_generator("loss", seed)).backward()
    unused = "prompt.padding" if "words" not in system.prompt.streams else ""
    idle = {name for name, p in system.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle <= {unused}

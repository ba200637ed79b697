"""Seams for other systems, each walked through by a toy: ids as targets, another backbone, a short context, noise."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mntp.backbones import CausalBackbone, ShortContext
from mntp.batch import TokenBatch
from mntp.conditioning.guidance import Guidance
from mntp.heads import Head, HeadSampling
from mntp.masking import Corruption, Fixed, VPNoise
from mntp.samplers import Decoding, ParallelDecoding
from mntp.seeding import make_generator
from mntp.systems import AudioNTP, AudioSystem
from tests.systems_support import D, N, tiny_batch, tiny_system

VOCABULARY = 5
SEEDS = range(4)


@dataclass(frozen=True, kw_only=True)
class CategoricalSampling(HeadSampling):
    """Settings of the toy categorical head."""

    top_k: int = VOCABULARY


class CategoricalHead(Head):
    """p(id | z) by a linear layer; a token's values are a function of its id."""

    held_out_name = "cross_entropy"
    sampling_type = CategoricalSampling
    guidance_spaces = ("logits", "context")
    target = "ids"

    def __init__(self, token_dim: int, cond_dim: int) -> None:
        super().__init__(token_dim, cond_dim)
        self.logits = nn.Linear(cond_dim, VOCABULARY)
        self.register_buffer("codebook", codebook())
        self.steps: list[int] = []

    def loss(self, z: Tensor, target: Tensor, generator: torch.Generator, step: int = 0) -> Tensor:
        assert target.dtype == torch.int64 and target.shape == z.shape[:1]
        self.steps.append(step)
        return F.cross_entropy(self.logits(z), target, reduction="none")

    def held_out_loss(self, z: Tensor, target: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(z), target, reduction="none")

    def num_draws(self, sampling: HeadSampling) -> int:
        return 1

    @torch.no_grad()
    def sample(
        self,
        z: Tensor,
        noise: Tensor,
        sampling: HeadSampling,
        *,
        z_uncond: Tensor | None = None,
        guidance_scale: float | Tensor = 1.0,
    ) -> Tensor:
        assert isinstance(sampling, CategoricalSampling)
        logits = self.logits(z)
        if z_uncond is not None:
            other = self.logits(z_uncond)
            logits = other + guidance_scale * (logits - other)
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf) / max(sampling.temperature, 1e-6)
        below = logits.softmax(dim=-1).cumsum(dim=-1)[:, :-1]
        chosen = (torch.special.ndtr(noise[:, 0, :1]) > below).sum(dim=-1)
        codes = self.get_buffer("codebook")
        return codes[chosen]


def codebook() -> Tensor:
    return torch.randn(VOCABULARY, D, generator=torch.Generator().manual_seed(5))


def ids_of_clips(count: int, seed: int = 0) -> Tensor:
    """Clips that count up from a random start: the successor of every id but the first is certain."""
    start = torch.randint(VOCABULARY, (count, 1), generator=torch.Generator().manual_seed(seed))
    return (start + torch.arange(N)) % VOCABULARY


def batch_of_ids(count: int = 16, seed: int = 0) -> TokenBatch:
    ids = ids_of_clips(count, seed)
    return replace(tiny_batch(count), tokens=codebook()[ids], ids=ids)


def ids_of(tokens: Tensor) -> Tensor:
    """The nearest code of each token."""
    return torch.cdist(tokens, codebook().expand(len(tokens), -1, -1)).argmin(dim=-1)


def train(system: AudioSystem, steps: int = 150, ratio: float = 0.3) -> list[float]:
    optimizer, losses = torch.optim.AdamW(system.parameters(), 1e-2), []
    for step in range(steps):
        loss = system.train().loss(batch_of_ids(seed=step), ratio, make_generator(step), step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("row", "sampling"), [("A", Decoding), ("G", ParallelDecoding)])
def test_a_categorical_head_learns_ids_and_decodes_them(row: str, sampling: type[Decoding]) -> None:
    system = tiny_system(row, head=CategoricalHead, decoding=sampling({"top_k": 1}, Guidance(1.0)), prompt_drop=0.0)
    assert isinstance(system.head, CategoricalHead)
    assert system.decoding.sampling == CategoricalSampling(top_k=1)
    before = system.eval().held_out_losses(batch_of_ids(seed=999))[0].mean()
    losses = train(system)
    assert system.head.steps == list(range(len(losses)))  # the optimiser step reaches the objective
    after = system.eval().held_out_losses(batch_of_ids(seed=999))[0]
    assert after[:, 1:].mean() < 0.1 * before and after[:, 0].mean() > 1  # the first id is anyone's guess: log 5 = 1.61
    tokens = system.generate(tiny_batch().text, seeds=SEEDS, prefix=codebook()[ids_of_clips(4)][:, :2])
    assert torch.equal(tokens, codebook()[ids_of_clips(4)])  # every token is the one that was to come


def test_top_k_and_guidance_in_logits_are_the_heads_own(monkeypatch: pytest.MonkeyPatch) -> None:
    system = tiny_system("A", head=CategoricalHead, decoding=Decoding())
    assert isinstance(system.head, CategoricalHead)
    z = torch.randn(2000, system.head.cond_dim, generator=torch.Generator().manual_seed(0))[:1].expand(2000, -1)
    noise = torch.randn(2000, 1, D, generator=torch.Generator().manual_seed(1))
    probabilities = system.head.logits(z[0]).softmax(dim=-1)
    for top_k in (VOCABULARY, 2):
        drawn = ids_of(system.head.sample(z, noise, CategoricalSampling(top_k=top_k))[None])[0]
        kept = torch.where(probabilities >= probabilities.sort().values[-top_k], probabilities, 0.0)
        expected = kept / kept.sum()
        shares = drawn.bincount(minlength=VOCABULARY) / 2000
        assert (shares - expected).abs().max() < 4 * (0.25 / 2000) ** 0.5
    with pytest.raises(ValueError, match="'num_steps' is not a setting of CategoricalHead; known: temperature, top_k"):
        tiny_system("A", head=CategoricalHead, decoding=Decoding({"num_steps": 4}))
    with pytest.raises(ValueError, match="got output, but CategoricalHead can be guided in logits, context only"):
        tiny_system("A", head=CategoricalHead, decoding=Decoding(guidance=Guidance(space="output")))


def test_a_head_of_ids_refuses_tokens_that_have_none() -> None:
    system = tiny_system("A", head=CategoricalHead, decoding=Decoding())
    with pytest.raises(ValueError, match="CategoricalHead predicts ids, but the tokens of this data have values only"):
        system.loss(tiny_batch(), 0.0, make_generator(0))


@dataclass(eq=False)
class State:
    """The hidden state [1, B, C] after all inputs that are kept, and those after each of the last inputs."""

    kept: Tensor
    last: list[Tensor]

    def advance(self, num_positions: int) -> None:
        """Keep the state after `num_positions` inputs."""
        self.kept = self.last[num_positions - 1]


class Recurrent(CausalBackbone):
    """A GRU over prompt, BOS and tokens."""

    def __init__(self, *, token_dim: int, num_tokens: int, prompt_length: int, dim: int = 16) -> None:
        super().__init__()
        self.dim, self.num_tokens, self.prompt_length = dim, num_tokens, prompt_length
        self.token_proj, self.gru = nn.Linear(token_dim, dim), nn.GRU(dim, dim, batch_first=True)
        self.bos = nn.Parameter(torch.randn(dim))

    def forward(
        self, prompt: Tensor, tokens: Tensor, positions: Tensor, target_embedding: Tensor | None = None
    ) -> Tensor:
        x = torch.cat([prompt, self.bos.expand(len(prompt), 1, -1), self.token_proj(tokens)], dim=1)
        z: Tensor = self.gru(x)[0][:, self.prompt_length :]
        return z

    def new_cache(self, batch: int, num_parallel: int = 1, fixed: bool = False) -> State:
        return State(torch.zeros(1, batch, self.dim), [])

    def prefill(
        self,
        prompt: Tensor,
        cache: State,
        tokens: Tensor,
        positions: Tensor,
        target_embedding: Tensor | None = None,
        num_parallel: int = 1,
    ) -> Tensor:
        z = self(prompt, tokens, positions)
        cache.kept = z[:, -1][None].contiguous()
        return z  # type: ignore[no-any-return]

    def feed(
        self,
        tokens: Tensor,
        positions: Tensor,
        cache: State,
        target_embedding: Tensor | None = None,
        num_parallel: int = 1,
    ) -> Tensor:
        z: Tensor = self.gru(self.token_proj(tokens), cache.kept)[0]
        cache.last = [z[:, t][None].contiguous() for t in range(z.shape[1])]
        return z


def contexts_while_decoding(monkeypatch: pytest.MonkeyPatch, system: AudioSystem) -> tuple[Tensor, Tensor]:
    """Contexts [B, N, C] that the head was given, and those of one uncached pass over the tokens that came out."""
    system.decoding = replace(system.decoding, sampling={"num_steps": 4, "x0_limit": 4.0})  # it is not trained
    seen: list[Tensor] = []
    sample = system.head.sample

    def spy(z: Tensor, *arguments: Any, **named: Any) -> Tensor:
        seen.append(z)
        return sample(z, *arguments, **named)

    monkeypatch.setattr(system.head, "sample", spy)
    batch = tiny_batch()
    tokens = system.eval().generate(batch.text, seeds=SEEDS)
    with torch.no_grad():
        pairs = system.held_out_pairs(tokens, system.prompt(batch.text), batch.index)
    return torch.stack(seen, dim=1), pairs.z


def test_another_causal_backbone_trains_and_decodes_with_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    system = tiny_system("C", backbone=Recurrent)
    system.loss(tiny_batch(), 0.5, make_generator(0)).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in system.backbone.parameters())
    cached, whole = contexts_while_decoding(monkeypatch, system)
    torch.testing.assert_close(cached, whole, rtol=1e-5, atol=1e-5)


class LastTwo(ShortContext):
    """A layer of the last two tokens; where there are none, zeros."""

    def __init__(self, *, token_dim: int, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * token_dim, dim)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        padded = F.pad(tokens, (0, 0, 2, 0))
        return self.layer(torch.cat([padded[:, :-1], padded[:, 1:]], dim=-1))  # type: ignore[no-any-return]

    def new_cache(self, batch: int, fixed: bool = False) -> "Window":
        return Window(torch.zeros(batch, 2, D))

    def prefill(self, cache: "Window", tokens: Tensor, positions: Tensor) -> Tensor:
        cache.tokens = torch.cat([cache.tokens, tokens], dim=1)[:, -2:]
        return self(tokens, positions)  # type: ignore[no-any-return]

    def feed(self, tokens: Tensor, positions: Tensor, cache: "Window") -> Tensor:
        cache.fed = torch.cat([cache.tokens, tokens], dim=1)
        pairs = torch.cat([cache.fed[:, 1:-1], cache.fed[:, 2:]], dim=-1)
        return self.layer(pairs)  # type: ignore[no-any-return]


class Window:
    """The last two tokens that are kept."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens, self.fed = tokens, tokens

    def advance(self, num_positions: int) -> None:
        """Move on."""
        self.tokens = self.fed[:, num_positions : num_positions + 2]


@pytest.mark.parametrize(("row", "changes"), [("A", {}), ("G", {}), ("G", {"tokens_per_call": 3})])
def test_a_short_context_decodes_with_its_cache_as_without(
    monkeypatch: pytest.MonkeyPatch, row: str, changes: dict[str, Any]
) -> None:
    system = tiny_system(row, short_context=LastTwo)
    assert isinstance(system, AudioNTP) and system.short_context is not None
    decoded = tiny_system(row, short_context=LastTwo)
    if not changes:
        cached, whole = contexts_while_decoding(monkeypatch, decoded)
        torch.testing.assert_close(cached, whole, rtol=1e-5, atol=1e-5)
    system.decoding = replace(system.decoding, **changes)
    prefix = tiny_batch(4, 1).tokens[:, :5]
    long_alone = replace_short(system)
    with_short = system.generate(tiny_batch().text, SEEDS, prefix=prefix)
    assert not torch.allclose(with_short, long_alone.generate(tiny_batch().text, SEEDS, prefix=prefix), atol=1e-3)


def replace_short(system: AudioNTP) -> AudioNTP:
    """The same system without its short context."""
    alone = tiny_system("A" if type(system) is AudioNTP else "G", decoding=system.decoding)
    alone.load_state_dict(system.state_dict(), strict=False)
    assert isinstance(alone, AudioNTP)
    return alone


def test_the_backbone_sees_noise_and_the_short_context_clean_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """CALM's training step: both paths predict the clean successor, and the sum of their contexts is scored."""
    system = tiny_system("A", masking_mode="noise", short_context=LastTwo).eval()
    assert isinstance(system, AudioNTP) and system.short_context is not None
    batch, seen = tiny_batch(), {}
    for name, part in {"long": system.backbone, "short": system.short_context}.items():
        part.register_forward_hook(lambda _, given, z, name=name: seen.update({name: (given, z)}))
    pairs = system.pairs(batch.tokens, system.prompt(batch.text), 0.0, make_generator(0))
    (_, noisy, *_), long = seen["long"]
    (clean, _), short = seen["short"]
    assert torch.equal(clean, batch.tokens[:, :-1])
    assert (noisy != clean).all()  # at every position: there is no mask ratio
    torch.testing.assert_close(pairs.z, long + short)
    task = system.task(batch.tokens, 0.0, make_generator(1))
    assert torch.equal(task.targets, torch.arange(N).expand(4, -1))


class Sign(Corruption):
    """A user's own corruption."""

    def corrupted(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """The other sign."""
        return -tokens


def test_corruptions_of_ones_own_are_taken_as_they_are() -> None:
    system = tiny_system("A", masking_mode=Sign(), mask_ratio=Fixed(0.5))
    assert isinstance(system, AudioNTP)
    tokens = tiny_batch().tokens
    task = system.task(tokens, 0.5, make_generator(0))
    flipped = (task.inputs == -tokens[:, :-1]).all(dim=-1)
    assert 0 < flipped.sum() < flipped.numel()
    assert torch.equal(task.inputs[~flipped], tokens[:, :-1][~flipped])
    with pytest.raises(ValueError, match=r"masking_mode: Sign requires a mask ratio distribution"):
        tiny_system("A", masking_mode=Sign())
    tiny_system("A", masking_mode=VPNoise(0.5))  # needs none


def test_without_a_short_context_nothing_is_new() -> None:
    plain, same = tiny_system("A"), tiny_system("A", short_context=None)
    assert plain.state_dict().keys() == same.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), same.parameters(), strict=True))

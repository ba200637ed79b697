"""Each token is revealed exactly once, in the stated order and number of calls; the batch never matters."""

import math
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mntp.conditioning.guidance import Guidance
from mntp.heads import HEADS, DiffusionSampling, HeadSampling, MixtureSampling
from mntp.samplers import ClipNoise, Decoding, MaskedDecoding, ParallelDecoding, TokenDrawer, cosine_counts
from mntp.systems import AudioMAR, AudioMNTP, AudioNTP, AudioSystem
from tests.systems_support import DECODING, D, N, tiny_batch, tiny_system


@pytest.mark.parametrize(("num_tokens", "num_steps"), [(256, 64), (256, 256), (64, 16), (12, 5), (12, 40), (1, 1)])
def test_cosine_counts(num_tokens: int, num_steps: int) -> None:
    counts = cosine_counts(num_tokens, num_steps)
    assert sum(counts) == num_tokens
    assert min(counts) >= 1
    hidden, expected = num_tokens, []
    for step in range(1, num_steps + 1):  # the rule as the specification words it
        left = (
            0
            if step == num_steps
            else min(hidden - 1, max(1, math.floor(num_tokens * math.cos(math.pi / 2 * step / num_steps))))
        )
        expected.append(hidden - left)
        hidden = left
        if not hidden:
            break
    assert counts == expected


def test_as_many_steps_as_tokens_reveals_one_at_a_time() -> None:
    assert cosine_counts(256, 256) == [1] * 256


NOTHING = torch.zeros(4, 0, D)  # no token is given


class Scribe(nn.Module):
    """Stands for the head: writes down how many tokens each call draws, and draws the call's number."""

    token_dim = D
    guidance_spaces = ("output",)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def num_draws(self, sampling: HeadSampling) -> int:
        return 1

    def sample(self, z: Tensor, noise: Tensor, sampling: HeadSampling, **_: object) -> Tensor:
        self.calls.append(len(z))
        return torch.full((len(z), D), float(len(self.calls)))


@pytest.mark.parametrize(
    ("row", "decoding", "calls"),
    [
        ("A", {}, N),
        ("G", {}, N),
        ("K", {"num_steps": 5}, 5),
        ("K", {"num_steps": N}, N),
        ("K", {"num_steps": 5, "order": "causal"}, 5),
        ("K", {"num_steps": N, "order": "causal"}, N),
    ],
)
def test_each_token_is_revealed_exactly_once(row: str, decoding: dict[str, object], calls: int) -> None:
    system, batch = tiny_system(row), tiny_batch()
    system.decoding = type(system.decoding)(**DECODING, **decoding)
    scribe = Scribe()
    system.head = scribe
    tokens = system.generate(batch.text, seeds=range(4))
    assert len(scribe.calls) == calls
    assert sum(scribe.calls) == 4 * N
    assert (tokens > 0).all()  # none left out
    steps = tokens[:, :, 0]
    if decoding.get("order") == "causal" or row != "K":
        assert (steps.diff(dim=1) >= 0).all()  # left to right
    else:
        assert len({tuple(clip.tolist()) for clip in steps}) > 1  # an order for each clip


@pytest.mark.parametrize(
    ("num_steps", "order"), [("n/4", "random"), ("n", "random"), (5, "random"), (5, "causal"), ("n", "causal")]
)
def test_the_masked_backbone_sees_each_token_revealed_once_and_never_changed(
    monkeypatch: pytest.MonkeyPatch, num_steps: Any, order: Any
) -> None:
    """Read off the inputs of the backbone: what is hidden, and the values of what is not."""
    system = tiny_system("K", decoding=MaskedDecoding(**DECODING, num_steps=num_steps, order=order))
    assert isinstance(system, AudioMAR)
    seen: list[tuple[Tensor, Tensor]] = []
    forward = system.backbone.forward

    def spy(prompt: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        seen.append((tokens.clone(), mask.clone()))
        return forward(prompt, tokens, mask)

    monkeypatch.setattr(system.backbone, "forward", spy)
    final = system.generate(tiny_batch().text, seeds=range(4))
    seen.append((final.repeat(2, 1, 1), torch.zeros(8, N, dtype=torch.bool)))
    assert seen[0][1].all()
    revealed = torch.zeros(8, N, dtype=torch.long)
    for step, ((_, before), (tokens, after)) in enumerate(pairwise(seen), start=1):
        assert not (after & ~before).any()  # nothing is hidden again
        revealed += before & ~after
        assert (tokens == final.repeat(2, 1, 1))[~after].all()  # nor drawn again
        left = math.floor(N * math.cos(math.pi / 2 * step / system.decoding.calls(N)))  # of MAR's schedule
        assert (after.sum(dim=1) == (0 if step == len(seen) - 1 else min(int(before[0].sum()) - 1, max(1, left)))).all()
        assert torch.equal(after[:4], after[4:])  # both branches of the guidance hide the same
        if order == "causal":
            assert not (before & ~after)[:, int((~after).sum(dim=1)[0]) :].any()
    assert (revealed == 1).all()
    if order == "random":
        assert len({tuple(mask.flatten().tolist()) for mask in seen[1][1][:4]}) > 1


@pytest.mark.parametrize("row", ["A", "G"])
def test_the_causal_backbone_is_fed_each_token_once_in_order_and_asked_for_the_next(
    monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    """Read off the inputs of the backbone: tokens, their places, and the embedding of the place asked for."""
    system = tiny_system(row)
    assert isinstance(system, AudioNTP)
    fed: list[Tensor] = []
    places: list[Tensor] = []
    asked: list[Tensor | None] = []
    prefill, feed = system.backbone.prefill, system.backbone.feed

    def spy_prefill(
        prompt: Tensor, cache: Any, tokens: Tensor, positions: Tensor, target: Tensor | None, count: int
    ) -> Any:
        assert tokens.shape[1] == positions.shape[1] == 0
        asked.append(target)
        return prefill(prompt, cache, tokens, positions, target, count)

    def spy_feed(tokens: Tensor, positions: Tensor, cache: Any, target: Tensor | None, count: int) -> Tensor:
        fed.append(tokens.clone())
        places.append(positions.clone())
        asked.append(target)
        return feed(tokens, positions, cache, target, count)

    monkeypatch.setattr(system.backbone, "prefill", spy_prefill)
    monkeypatch.setattr(system.backbone, "feed", spy_feed)
    final = system.generate(tiny_batch().text, seeds=range(4)).repeat(2, 1, 1)
    assert torch.equal(torch.cat(fed, dim=1), final[:, :-1])
    assert torch.equal(torch.cat(places, dim=1), torch.arange(N - 1).expand(8, -1))
    if isinstance(system, AudioMNTP):
        assert system.target_position_embed is not None
        assert torch.equal(
            torch.cat([t for t in asked if t is not None], dim=1), system.target_position_embed.expand(8, -1, -1)
        )
    else:
        assert asked == [None] * N


class GuidanceScribe(Scribe):
    """Writes down both contexts and the scale of each call."""

    def sample(self, z: Tensor, noise: Tensor, sampling: HeadSampling, **guidance: Any) -> Tensor:
        self.contexts.append((z, guidance["z_uncond"], guidance["guidance_scale"]))
        return 0.1 * super().sample(z, noise, sampling)

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[tuple[Tensor, Tensor, float]] = []


@pytest.mark.parametrize("row", ["A", "G", "K"])
def test_guidance_pulls_from_the_fake_prompt_to_the_captions_by_the_schedule(row: str) -> None:
    """Each branch is an unguided decoding of its own prompt; the scale is Equation 5's at i = 1 + tokens known."""
    system, text = tiny_system(row).eval(), tiny_batch().text
    sizes, head = {**DECODING, **({"num_steps": 5} if row == "K" else {})}, system.head
    made: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
    for name, scale in {"guided": 7.0, "captions": 1.0, "fake": 1.0}.items():
        system.head = head
        system.decoding = type(system.decoding)(**{**sizes, "guidance": Guidance(scale)})
        scribe = GuidanceScribe()
        system.head = scribe
        prompt = system.prompt.fake(4) if name == "fake" else system.prompt(text)
        list(system.decode(prompt, system.prompt.fake(4), ClipNoise(range(4), torch.device("cpu")), NOTHING, N))
        made[name] = scribe.contexts
    known = 0
    for guided, captions, fake in zip(made["guided"], made["captions"], made["fake"], strict=True):
        torch.testing.assert_close(guided[0], captions[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(guided[1], fake[0], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(captions[0], fake[0], atol=1e-2)
        assert captions[1] is None
        assert guided[2] == pytest.approx(1 + (7 - 1) * (1 - known / (N - 1)))
        known += len(guided[0]) // 4
    assert known == N


@pytest.mark.parametrize("row", ["A", "G", "K"])
@pytest.mark.parametrize("guidance", [Guidance(1.0), Guidance(0.0, "constant", "paper")])
def test_without_guidance_the_fake_prompt_is_never_heard(row: str, guidance: Guidance) -> None:
    system, text = tiny_system(row), tiny_batch().text
    system.decoding = type(system.decoding)(sampling={"num_steps": 4}, guidance=guidance)
    tokens = system.generate(text, seeds=range(4))
    torch.nn.init.constant_(system.prompt.fake_prompt, math.nan)
    assert torch.equal(system.generate(text, seeds=range(4)), tokens)
    system.decoding = type(system.decoding)(sampling={"num_steps": 4}, guidance=Guidance(3.0))
    assert system.generate(text, seeds=range(4)).isnan().any()


@pytest.mark.parametrize("row", ["A", "G", "K"])
def test_a_clip_is_a_function_of_its_caption_and_seed(row: str) -> None:
    system, batch = tiny_system(row), tiny_batch()
    together = system.generate(batch.text, seeds=[5, 6, 7, 8])
    assert torch.equal(together, system.generate(batch.text, seeds=[5, 6, 7, 8]))
    alone = {name: type(s)(s.states[2:3], s.lengths[2:3]) for name, s in batch.text.items()}
    torch.testing.assert_close(system.generate(alone, seeds=[7]), together[2:3], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(system.generate(alone, seeds=[8]), together[2:3], atol=1e-2)


@pytest.mark.parametrize("row", ["A", "G"])
def test_cached_decoding_asks_what_the_whole_sequence_asks(row: str) -> None:
    """Contexts seen while decoding are those of one uncached pass over the tokens that came out."""
    system, batch = tiny_system(row).eval(), tiny_batch()
    seen: list[Tensor] = []
    sample = system.head.sample

    def spy(z: Tensor, noise: Tensor, sampling: HeadSampling, **arguments: object) -> Tensor:
        seen.append(z)
        return sample(z, noise, sampling, **arguments)  # type: ignore[arg-type]  # handed on as they came

    system.head.sample = spy  # type: ignore[method-assign]
    tokens = system.generate(batch.text, seeds=range(4))
    with torch.no_grad():
        pairs = system.held_out_pairs(tokens, system.prompt(batch.text), batch.index)
    torch.testing.assert_close(torch.stack(seen, dim=1), pairs.z, rtol=1e-5, atol=1e-5)


def count_positions(system: AudioSystem) -> int:
    """Positions that pass through the backbone's blocks while one batch is decoded."""
    seen = []
    for block in system.backbone.encoder_blocks:
        block.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    system.generate(tiny_batch().text, seeds=range(4))
    return sum(seen)


def test_with_a_cache_each_position_is_computed_once() -> None:
    prompt_and_bos = 4 + 1
    assert count_positions(tiny_system("G")) == prompt_and_bos + N - 1
    assert count_positions(tiny_system("K")) > prompt_and_bos + N - 1  # MAR has no cache


def test_noise_is_drawn_for_each_clip_apart() -> None:
    first = ClipNoise([1, 2], torch.device("cpu")).normal(3, D)
    second = ClipNoise([2, 1], torch.device("cpu")).normal(3, D)
    assert torch.equal(first, second.flip(0))
    orders = ClipNoise([1, 2], torch.device("cpu")).orders(50)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(50).expand(2, -1))


def test_steps_are_a_number_or_a_share_of_the_tokens() -> None:
    assert [MaskedDecoding(num_steps=n).calls(256) for n in ("n/4", "n", 7, 1)] == [64, 256, 7, 1]
    assert MaskedDecoding().calls(3) == 1


@pytest.mark.parametrize("steps", [0, -1, "n/3", 2.5])
def test_senseless_steps_are_refused_when_the_settings_are_made(steps: object) -> None:
    with pytest.raises(ValueError, match=r"^decoding\.num_steps: expected n/4, n or a number from 1 up, got .*$") as e:
        MaskedDecoding(num_steps=steps)  # type: ignore[arg-type]  # a mistake
    assert repr(steps) in str(e.value)


@pytest.mark.parametrize(
    ("head", "sampling", "message"),
    [
        ("DiffusionHead", {"num_steps": 1}, r"^decoding\.sampling\.num_steps: expected 2 to 1000, got 1$"),
        ("DiffusionHead", {"num_steps": 1001}, r"^decoding\.sampling\.num_steps: expected 2 to 1000, got 1001$"),
        ("MixtureHead", {"num_steps": 4}, r"^decoding\.sampling: 'num_steps' is not a setting of MixtureHead; known: "),
        ("FlowMatchingHead", {"num_steps": 1}, None),
    ],
)
def test_what_the_head_cannot_do_is_refused_before_training(
    head: str, sampling: dict[str, Any], message: str | None
) -> None:
    made = tiny_system("G", head=head)
    if message is None:
        made.decoding = ParallelDecoding(sampling=sampling)
        tiny_system("G", head=head, decoding=ParallelDecoding(sampling=sampling))
        return
    before = made.decoding
    for refused in (
        lambda: tiny_system("G", head=head, decoding=ParallelDecoding(sampling=sampling)),
        lambda: setattr(made, "decoding", ParallelDecoding(sampling=sampling)),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
    assert made.decoding is before


def test_settings_become_the_heads_own_with_every_default() -> None:
    system = tiny_system("G", decoding=ParallelDecoding(sampling={"num_steps": 9}))
    assert system.decoding.sampling == DiffusionSampling(num_steps=9)
    assert tiny_system("G", head="MixtureHead").decoding.sampling == MixtureSampling()
    assert type(system.decoding).from_dict(asdict(system.decoding)).for_head(system.head) == system.decoding


@pytest.mark.parametrize("row", ["A", "K"])
@pytest.mark.parametrize("head", HEADS)
def test_guidance_of_contexts_is_decoding_under_extrapolated_contexts(
    monkeypatch: pytest.MonkeyPatch, row: str, head: str
) -> None:
    """Written out: z_u + w (z_c - z_u) goes into the head, which is never told of the other branch."""
    system = tiny_system(row, head=head).eval()
    system.decoding = replace(system.decoding, guidance=Guidance(3.0, "constant", space="context"))
    contexts: list[Tensor] = []
    seen: list[Tensor] = []
    draw, sample = TokenDrawer.draw, system.head.sample

    def spy_draw(drawer: TokenDrawer, z: Tensor, num_known: int) -> Tensor:
        contexts.append(z)
        return draw(drawer, z, num_known)

    def spy_sample(z: Tensor, noise: Tensor, sampling: HeadSampling, **guidance: Any) -> Tensor:
        assert guidance["z_uncond"] is None
        seen.append(z)
        return sample(z, noise, sampling)

    monkeypatch.setattr(TokenDrawer, "draw", spy_draw)
    monkeypatch.setattr(system.head, "sample", spy_sample)
    tokens = system.generate(tiny_batch().text, seeds=range(4))
    for z, used in zip(contexts, seen, strict=True):
        captions, fake = z[:4].flatten(0, 1), z[4:].flatten(0, 1)
        torch.testing.assert_close(used, fake + 3 * (captions - fake))
    monkeypatch.undo()
    system.decoding = replace(system.decoding, guidance=Guidance(3.0, "constant"))
    same = torch.equal(system.generate(tiny_batch().text, seeds=range(4)), tokens)
    assert same == (head == "MixtureHead")  # of which it is the default


@pytest.mark.parametrize(
    ("head", "guidance", "sampling", "message"),
    [
        ("MixtureHead", {"space": "output"}, {}, "space: got output, but MixtureHead can be guided in context only"),
        ("DiffusionHead", {"space": "logits"}, {}, "got logits, but DiffusionHead can be guided in output, context"),
        ("DiffusionHead", {"space": "context"}, {"guided_steps": [0, 0.5]}, "guided_steps: guidance in the space of"),
    ],
)
def test_guidance_that_a_head_cannot_take_is_refused(
    head: str, guidance: dict[str, Any], sampling: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_system("A", head=head, decoding=Decoding(sampling, Guidance(**guidance)))


def test_mar_decodes_in_a_quarter_of_the_steps_by_default() -> None:
    system = tiny_system("K")
    assert isinstance(system, AudioMAR)
    scribe = Scribe()
    system.head = scribe
    system.generate(tiny_batch().text, seeds=range(4))
    assert len(scribe.calls) == N // 4

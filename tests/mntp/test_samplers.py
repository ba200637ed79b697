"""Each token is revealed exactly once, in the stated order and number of calls; the batch never matters."""

import math

import pytest
import torch
from torch import Tensor, nn

from mntp.heads import HeadSampling
from mntp.samplers import ClipNoise, MaskedDecoding, cosine_counts
from mntp.systems import AudioMAR, AudioSystem
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


class Scribe(nn.Module):
    """Stands for the head: writes down how many tokens each call draws, and draws the call's number."""

    token_dim = D

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
    assert [MaskedDecoding(num_steps=n).calls(256) for n in ("n/4", "n", 7)] == [64, 256, 7]
    assert MaskedDecoding().calls(3) == 1
    with pytest.raises(ValueError, match=r"decoding\.num_steps: expected n/4, n or a number from 1 up, got 0"):
        MaskedDecoding(num_steps=0).calls(256)


def test_mar_decodes_in_a_quarter_of_the_steps_by_default() -> None:
    system = tiny_system("K")
    assert isinstance(system, AudioMAR)
    scribe = Scribe()
    system.head = scribe
    system.generate(tiny_batch().text, seeds=range(4))
    assert len(scribe.calls) == N // 4

"""Several positions at once, random orders, given beginnings: what the backbone is fed and asked."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mntp.conditioning.guidance import Guidance
from mntp.masking import Fixed
from mntp.samplers import ClipNoise, MaskedDecoding, ParallelDecoding
from mntp.samplers.orders import put_known_first
from mntp.systems import AudioMNTP
from tests.systems_support import DECODING, D, N, tiny_batch, tiny_system


def system_with(row: str = "G", **decoding: Any) -> AudioMNTP:
    system = tiny_system(row, decoding=ParallelDecoding(**{**DECODING, **decoding}))
    assert isinstance(system, AudioMNTP)
    return system.eval()


@pytest.mark.parametrize(
    ("k", "ramp", "known", "expected"),
    [
        (1, False, 0, [1] * 12),
        (4, False, 0, [4, 4, 4]),
        (5, False, 0, [5, 5, 2]),
        (99, False, 0, [12]),
        (4, False, 9, [3]),
        (4, False, 12, []),
        (4, True, 0, [1, 1, 1, 2, 2, 3, 2]),
        (3, True, 6, [2, 3, 1]),
    ],
)
def test_tokens_of_each_call(k: int, ramp: bool, known: int, expected: list[int]) -> None:
    counts = ParallelDecoding(tokens_per_call=k, ramp=ramp).counts(known, 12)
    assert counts == expected
    assert sum(counts) == 12 - known


@pytest.mark.parametrize("k", [1, 2, 3, 5, N])
@pytest.mark.parametrize("ramp", [False, True])
@pytest.mark.parametrize(("row", "random_order"), [("G", False), ("shuffled", False), ("shuffled", True)])
def test_contexts_are_those_of_sequences_that_skip(
    monkeypatch: pytest.MonkeyPatch, row: str, random_order: bool, ramp: bool, k: int
) -> None:
    """Each context seen while decoding is that of one uncached pass over the tokens fed before it, as in training."""
    system = system_with(row, tokens_per_call=k, ramp=ramp, random_order=random_order)
    seen: list[Tensor] = []
    sample, calls = system.head.sample, []

    def spy(z: Tensor, noise: Tensor, sampling: Any, **arguments: Any) -> Tensor:
        seen.append(z)
        return sample(z, noise, sampling, **arguments)

    for name in ("prefill", "feed"):
        method = getattr(system.backbone, name)
        monkeypatch.setattr(
            system.backbone, name, lambda *a, method=method, name=name: (calls.append(name), method(*a))[1]
        )
    monkeypatch.setattr(system.head, "sample", spy)
    batch = tiny_batch()
    tokens = system.generate(batch.text, seeds=range(4))
    counts = system.decoding.counts(0, N)
    assert calls == ["prefill"] + ["feed"] * (len(counts) - 1)  # exact in the number of calls
    orders = torch.arange(N).expand(4, -1)
    if random_order:
        orders = ClipNoise(range(4), torch.device("cpu")).orders(N)
    ordered = tokens.gather(1, orders[..., None].expand(-1, -1, D))
    known = 0
    for z, count in zip(seen, counts, strict=True):
        for j in range(count):
            asked = torch.cat([orders[:, :known], orders[:, known + j : known + j + 1]], dim=1)
            with torch.no_grad():
                alone = system.backbone(
                    system.prompt(batch.text), ordered[:, :known], orders[:, :known], system.target_embedding(asked)
                )
            torch.testing.assert_close(z.view(4, count, -1)[:, j], alone[:, -1], rtol=1e-4, atol=1e-5)
        known += count


@pytest.mark.parametrize("random_order", [False, True])
def test_each_token_is_drawn_once_and_never_changed(random_order: bool) -> None:
    system = system_with("shuffled", tokens_per_call=3, random_order=random_order)
    before, text = torch.zeros(4, N, D), tiny_batch().text
    seen = 0
    for tokens, _, final, _ in system.stream(text, range(4)):
        drawn = (tokens != 0).all(dim=-1)
        assert torch.equal(tokens[before != 0], before[before != 0])
        assert (drawn.sum(dim=1) == min(seen + 3, N)).all()
        assert final == min([*clip, False].index(False) for clip in drawn.tolist())  # the first gap of any clip
        if not random_order:
            assert final == min(seen + 3, N)
        before, seen = tokens.clone(), seen + 3
    assert final == N
    torch.testing.assert_close(system.generate(text, range(4)), before, rtol=0, atol=0)


@pytest.mark.parametrize("row", ["A", "G", "shuffled", "K"])
@pytest.mark.parametrize("num_known", [0, 1, 5, N - 1, N])
def test_what_is_given_is_kept_and_continued(row: str, num_known: int) -> None:
    system, text = tiny_system(row).eval(), tiny_batch().text
    if row == "shuffled":
        system.decoding = ParallelDecoding(**DECODING, tokens_per_call=2, random_order=True)
    prefix = torch.randn(4, num_known, D, generator=torch.Generator().manual_seed(3))
    tokens = system.generate(text, range(4), prefix=prefix)
    assert tokens.shape == (4, N, D)
    assert torch.equal(tokens[:, :num_known], prefix)
    assert (tokens != 0).all()
    if 0 < num_known < N:
        other = system.generate(text, range(4), prefix=prefix + 1)
        assert not torch.allclose(other[:, num_known:], tokens[:, num_known:], atol=1e-2)  # it is listened to


@pytest.mark.parametrize("row", ["A", "G"])
def test_continuing_a_clip_asks_what_decoding_it_asked(monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    """The contexts behind a given beginning are those of the whole decoding, and the guidance as well."""
    system, text = tiny_system(row).eval(), tiny_batch().text
    seen: list[tuple[Tensor, float]] = []
    sample = system.head.sample

    def spy(z: Tensor, noise: Tensor, sampling: Any, **arguments: Any) -> Tensor:
        seen.append((z, arguments["guidance_scale"]))
        return sample(z, torch.zeros_like(noise), sampling, **arguments)  # noise would be another for another start

    monkeypatch.setattr(system.head, "sample", spy)
    whole = system.generate(text, range(4))
    first = seen.copy()
    seen.clear()
    again = system.generate(text, range(4), prefix=whole[:, :5])
    torch.testing.assert_close(again, whole, rtol=1e-4, atol=1e-4)
    for (z, scale), (expected, expected_scale) in zip(seen, first[5:], strict=True):
        torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
        assert scale == expected_scale


@pytest.mark.parametrize("row", ["A", "G", "K"])
def test_a_shorter_clip_is_the_beginning_of_the_whole_one(row: str) -> None:
    system, text = tiny_system(row).eval(), tiny_batch().text
    whole = system.generate(text, range(4))
    short = system.generate(text, range(4), num_tokens=4)
    assert short.shape == (4, 4, D)
    torch.testing.assert_close(short, whole[:, :4], rtol=1e-5, atol=1e-5)


def test_a_shorter_clip_costs_less() -> None:
    system, calls = system_with(), []
    system.backbone.encoder_blocks[0].register_forward_hook(lambda *_: calls.append(1))
    system.generate(tiny_batch().text, range(4), num_tokens=4)
    assert len(calls) == 4


@pytest.mark.parametrize("num_tokens", [0, -1, N + 1])
def test_lengths_that_the_model_does_not_draw(num_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"num_tokens is {num_tokens}; the model draws 1 to {N} tokens a clip"):
        system_with().generate(tiny_batch().text, range(4), num_tokens=num_tokens)


@pytest.mark.parametrize("shape", [(4, N + 1, D), (4, 2, D + 1), (3, 2, D)])
def test_beginnings_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a prefix of shape .*; expected \[4, at most 12, 3\]"):
        system_with().generate(tiny_batch().text, range(4), prefix=torch.zeros(shape))


def test_what_a_model_cannot_be_asked_is_refused_when_it_is_built() -> None:
    with pytest.raises(ValueError, match=r"^decoding\.tokens_per_call: 2 needs target_position_embedding: true"):
        system_with("I", tokens_per_call=2)
    with pytest.raises(ValueError, match=r"^decoding\.random_order: true fills gaps .* train with shuffled: true"):
        system_with("G", random_order=True)
    with pytest.raises(ValueError, match=r"^shuffled: true needs target_position_embedding: true"):
        tiny_system("I", shuffled=True)
    with pytest.raises(ValueError, match=r"^decoding\.tokens_per_call: expected a number from 1 up, got 0$"):
        ParallelDecoding(tokens_per_call=0)


def test_a_change_of_decoding_is_checked_as_well() -> None:
    system = system_with("G")
    with pytest.raises(ValueError, match=r"^decoding\.random_order: true"):
        system.decoding = ParallelDecoding(**DECODING, random_order=True)
    assert not system.decoding.random_order


def test_shuffled_training_feeds_each_kept_token_once_in_any_order() -> None:
    system = tiny_system("shuffled", mask_ratio=Fixed(0.25))
    assert isinstance(system, AudioMNTP)
    tokens = torch.randn(500, N, D)
    task = system.task(tokens, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(task.positions, task.targets[:, :-1])  # each input is asked for the next in the order
    assert torch.equal(task.inputs, tokens.gather(1, task.positions[..., None].expand(-1, -1, D)))
    kept = task.targets.sort(dim=1).values
    assert kept.shape == (500, 9) and (kept.diff(dim=1) > 0).all()  # each at most once
    rising = (task.targets.diff(dim=1) > 0).float().mean()
    assert float(rising) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(500 * 8))  # neighbours in either order
    first = torch.bincount(task.targets[:, 0], minlength=N) / 500
    assert ((first - 1 / N).abs() < 4 * math.sqrt(1 / N / 500)).all()  # BOS is asked for any


def test_orders_behind_what_is_known() -> None:
    orders = torch.tensor([[3, 0, 4, 1, 2], [1, 4, 2, 3, 0]])
    assert put_known_first(orders, 0).tolist() == orders.tolist()
    assert put_known_first(orders, 2).tolist() == [[0, 1, 3, 4, 2], [0, 1, 4, 2, 3]]
    assert put_known_first(orders, 5).tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("row", ["A", "G", "K"])
def test_training_goes_on_as_it_was_while_and_after_drawing(row: str) -> None:
    system = tiny_system(row).train()
    steps = system.stream(tiny_batch().text, range(4))
    tokens = next(steps).tokens
    assert not tokens.requires_grad
    assert torch.is_grad_enabled()
    steps.close()  # type: ignore[attr-defined]  # a generator: whoever listens has heard enough
    assert system.training


def test_guidance_falls_with_the_tokens_known_when_several_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    system, scales = system_with(tokens_per_call=4, guidance=Guidance(7.0)), []
    sample = system.head.sample

    def spy(*arguments: Any, **named: Any) -> Tensor:
        scales.append(named["guidance_scale"])
        return sample(*arguments, **named)

    monkeypatch.setattr(system.head, "sample", spy)
    system.generate(tiny_batch().text, range(4))
    assert scales == pytest.approx([1 + 6 * (1 - known / (N - 1)) for known in (0, 4, 8)])


def test_masked_decoding_of_a_given_beginning_hides_the_rest_in_as_many_steps() -> None:
    system = tiny_system("K", decoding=MaskedDecoding(**DECODING, num_steps=3))
    steps = list(system.stream(tiny_batch().text, range(4), prefix=torch.ones(4, 5, D)))
    assert len(steps) == 3
    assert all(state.leading >= 5 for state in steps) and steps[-1].leading == N

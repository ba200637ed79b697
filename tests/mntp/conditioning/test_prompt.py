"""Prompt positions: order of streams, padding slots, cutting, the fake prompt."""

import pytest
import torch

from mntp.batch import TextStates, TextStream
from mntp.conditioning.prompt import PromptEncoder


def encoder() -> PromptEncoder:
    torch.manual_seed(0)
    return PromptEncoder({"pooled": TextStream(5, 1), "words": TextStream(4, 3)}, dim=8)


def text(lengths: list[int], slots: int = 3) -> dict[str, TextStates]:
    generator = torch.Generator().manual_seed(1)
    batch = len(lengths)
    return {
        "words": TextStates(torch.randn(batch, slots, 4, generator=generator), torch.tensor(lengths)),
        "pooled": TextStates(torch.randn(batch, 1, 5, generator=generator), torch.ones(batch, dtype=torch.long)),
    }


def test_streams_stand_in_the_declared_order_and_short_captions_are_padded() -> None:
    prompts, states = encoder(), text([3, 1])
    prompt = prompts(states)
    assert prompt.shape == (2, prompts.length, 8) == (2, 4, 8)
    torch.testing.assert_close(prompt[:, :1], prompts.proj["pooled"](states["pooled"].states))
    torch.testing.assert_close(prompt[0, 1:], prompts.proj["words"](states["words"].states[0]))
    assert (prompt[1, 2:] == prompts.padding).all()


def test_padding_of_the_batch_never_shows() -> None:
    """A caption's prompt is the same alone, beside a longer one, and with garbage beyond its length."""
    prompts, states = encoder(), text([2, 3])
    alone = {name: TextStates(s.states[:1, : 2 if name == "words" else 1], s.lengths[:1]) for name, s in states.items()}
    states["words"].states[0, 2] = 1e6
    torch.testing.assert_close(prompts(states)[:1], prompts(alone))


def test_captions_longer_than_the_slots_are_cut() -> None:
    prompts, states = encoder(), text([5, 5], slots=5)
    torch.testing.assert_close(prompts(states)[:, 1:], prompts.proj["words"](states["words"].states[:, :3]))


def test_dropped_prompts_are_the_fake_prompt() -> None:
    prompts, states = encoder(), text([3, 3])
    prompt = prompts(states, drop=torch.tensor([True, False]))
    assert torch.equal(prompt[0], prompts.fake(1)[0])
    assert torch.equal(prompt[1], prompts(states)[1])


def test_streams_that_do_not_fit() -> None:
    prompts, states = encoder(), text([3])
    with pytest.raises(ValueError, match=r"reads text stream 'words', the data has \['pooled'\]"):
        prompts({"pooled": states["pooled"]})
    with pytest.raises(ValueError, match="'words' has 5 values a vector, the model expects 4"):
        prompts({**states, "words": states["pooled"]})
    with pytest.raises(ValueError, match="at least one text stream"):
        PromptEncoder({}, dim=8)

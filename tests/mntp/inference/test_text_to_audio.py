"""Captions in, waveforms out: against the parts put together by hand, in batches, shorter, continued, streamed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mntp import TextToAudio
from mntp.audio.log_mel import normalise
from mntp.conditioning.guidance import Guidance
from mntp.heads import DiffusionSampling
from mntp.inference.streaming import Windows
from mntp.inference.text_to_audio import assign_seeds
from mntp.samplers import Decoding, MaskedDecoding
from mntp.seeding import derive_seed
from tests.models import CLIP_SAMPLES, NUM_SLICES, noises, tiny_model, tiny_trained

SYSTEMS = ("AudioNTP", "AudioMNTP", "AudioMAR")
CAPTIONS = ["a dog barks", "rain", "wind, then a very long bell"]
TOLERANCE: dict[str, float] = {"atol": 1e-3, "rtol": 0}  # of waveforms within +-1; what differs at all differs by more


def tokens_of(model: TextToAudio, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> Tensor:
    """Tokens [B, n, D] that a call of `generate` hands to the tokenizer."""
    seen: list[Tensor] = []

    def decode(tokens: Tensor) -> Tensor:
        seen.append(tokens.clone())
        return torch.zeros(len(tokens), tokens.shape[1] // 4 * 2560)

    with monkeypatch.context() as patch:
        patch.setattr(model.tokenizer, "decode", decode)
        call()
    return torch.cat(seen)


def test_importing_mntp_imports_no_torch() -> None:
    code = "import sys, mntp; assert 'torch' not in sys.modules; mntp.Nonsense"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("AttributeError: module 'mntp' has no attribute 'Nonsense'")


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_saved_model_sounds_the_same(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    model.save_pretrained(tmp_path / "m")
    again = TextToAudio.from_pretrained(tmp_path / "m", device="cpu")
    for ours, theirs in zip(again.generate(CAPTIONS), model.generate(CAPTIONS), strict=True):
        assert ours.equal(theirs)
    assert (model.sample_rate, model.slice_seconds, model.max_seconds) == (16_000, 0.16, NUM_SLICES * 0.16)


def test_drawing_in_bfloat16_leaves_the_weights_that_are_saved(tmp_path: Path) -> None:
    exact = tiny_model()
    fast = TextToAudio(tiny_trained(), "cpu", bfloat16=True)
    assert fast.bfloat16 and not exact.bfloat16  # on a CPU only where it is asked for
    (one,), (other,) = fast.generate(["rain"]), exact.generate(["rain"])
    assert one.shape == other.shape and one.dtype == torch.float32 and not torch.equal(one, other)
    streamed = torch.cat(list(fast.stream("rain")))
    assert streamed.shape == one.shape
    for name, model in {"fast": fast, "exact": exact}.items():
        model.save_pretrained(tmp_path / name)
    assert (tmp_path / "fast" / "model.safetensors").read_bytes() == (
        tmp_path / "exact" / "model.safetensors"
    ).read_bytes()


def test_a_clip_is_the_parts_put_together() -> None:
    model, system = tiny_model(), tiny_trained()
    (waveform,) = model.generate(["rain"], seed=3)
    text = model._text(["rain"])
    tokens = system.generate(text, [derive_seed("generate", 3, "rain")])
    assert waveform.equal(model.tokenizer.decode(tokens)[0])
    assert waveform.shape == (CLIP_SAMPLES,)
    assert waveform.dtype == torch.float32


def test_seeds_and_batches() -> None:
    model = tiny_model()
    together = model.generate(CAPTIONS, seed=1, batch_size=3)
    for size in (1, 2):
        for ours, theirs in zip(model.generate(CAPTIONS, seed=1, batch_size=size), together, strict=True):
            torch.testing.assert_close(ours, theirs, **TOLERANCE)
    alone = model.generate(CAPTIONS[1], seed=1)[0]
    torch.testing.assert_close(alone, together[1], **TOLERANCE)
    (other,) = model.generate(CAPTIONS[1], seed=2)
    assert (other - alone).abs().max() > 0.05
    assert (together[0] - together[1]).abs().max() > 0.05
    mixed = model.generate([CAPTIONS[1]] * 2, seed=[2, 1])
    torch.testing.assert_close(torch.stack(mixed), torch.stack([other, alone]), **TOLERANCE)
    twice = model.generate([CAPTIONS[1]] * 2, seed=1)
    torch.testing.assert_close(twice[0], alone, **TOLERANCE)
    assert (twice[0] - twice[1]).abs().max() > 0.05  # a caption that comes twice is drawn twice
    assert model.generate([]) == []


def test_seeds_of_repeated_captions_differ() -> None:
    seeds = assign_seeds(["a", "b", "a", "a", "b"], 5)
    assert seeds[:2] == [5, 5]
    assert len(set(seeds[2:]) | {5}) == 3  # the second "a" and the second "b" are told apart by their captions
    assert seeds == assign_seeds(["a", "b", "a", "a", "b", "c"], 5)[:5]


@pytest.mark.parametrize("name", SYSTEMS)
def test_progress_counts_tokens_of_all_captions(name: str) -> None:
    calls: list[tuple[int, int]] = []
    model = tiny_model(name)
    model.generate(CAPTIONS, batch_size=2, seconds=0.32, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (24, 24)
    assert (16, 24) in calls
    assert calls == sorted(calls)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_shorter_clip_has_the_first_tokens_of_the_longer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(name)
    whole = tokens_of(model, monkeypatch, lambda: model.generate(CAPTIONS))
    short = tokens_of(model, monkeypatch, lambda: model.generate(CAPTIONS, seconds=0.48))
    assert short.shape == (3, 12, 6)
    torch.testing.assert_close(short, whole[:, :12], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SYSTEMS)
def test_going_on_from_a_sound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clip begins with the sound's own tokens, and what follows listens to them."""
    model, sounds = tiny_model(name), 0.9 * noises(2, 3 * 2560, seed=3)[:, :-700]

    def continued(prompt: Tensor, captions: list[str] = CAPTIONS[:2]) -> Tensor:
        return tokens_of(model, monkeypatch, lambda: model.generate(captions, continue_from=prompt))

    cut = model.tokenizer.encode(normalise(sounds[:, :5120]))
    both = continued(sounds)
    torch.testing.assert_close(both[:, :8], cut, atol=1e-5, rtol=0)
    same = continued(sounds[0])
    torch.testing.assert_close(same[:, :8], cut[:1].expand(2, -1, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(same[0], both[0], atol=1e-4, rtol=0)
    assert (same[1, 8:] - both[1, 8:]).abs().max() > 1e-3  # same caption and seed after another beginning
    free = tokens_of(model, monkeypatch, lambda: model.generate(CAPTIONS[:2]))
    assert (free - both).abs().max() > 0.1


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("continued", [False, True])
def test_joined_pieces_are_the_whole(name: str, continued: bool) -> None:
    """With windows as wide as the clip they are what the tokenizer makes of it; only the seams' fades are left."""
    model = tiny_model(name)
    prompt = noises(1, 5120)[0] if continued else None
    arguments: dict[str, Any] = {"seed": 4, "continue_from": prompt, "seconds": 0.64}
    (whole,) = model.generate(["rain"], **arguments)
    windows = Windows(context=NUM_SLICES, lookahead=NUM_SLICES, crossfade=0)
    torch.testing.assert_close(torch.cat(list(model.stream("rain", windows=windows, **arguments))), whole, **TOLERANCE)
    assert torch.cat(list(model.stream("rain", windows=Windows(lookahead=1), **arguments))).shape == whole.shape
    if name != "AudioMAR":
        first = next(model.stream("rain", windows=Windows(lookahead=1), **arguments))
        assert len(first) == 2560


def test_sound_comes_before_the_clip_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn = tiny_model(), list[int]()
    stream_tokens = model.system.stream

    def counted(*arguments: Any, **named: Any) -> Any:
        for state in stream_tokens(*arguments, **named):
            drawn.append(state.leading)
            yield state

    monkeypatch.setattr(model.system, "stream", counted)
    stream = model.stream("rain", windows=Windows(lookahead=1))
    assert drawn == []
    next(stream)
    assert drawn[-1] == 8  # two slices of four tokens, of sixteen


def test_decoding_is_changed_for_one_call_and_by_any_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    own = model.system.decoding
    (plain,) = model.generate(["rain"])
    (hotter,) = model.generate(["rain"], sampling={"temperature": 0.2})
    assert (plain - hotter).abs().max() > 0.01
    assert model.system.decoding == own
    assert model.generate(["rain"])[0].equal(plain)
    changed = model.decoding(guidance_scale=5, sampling={"num_steps": 2})
    assert changed.guidance == Guidance(5.0)
    assert changed.sampling == DiffusionSampling(num_steps=2, x0_limit=5.0)
    assert model.generate(["rain"], guidance_scale=5)[0].equal(model.generate(["rain"], guidance={"scale": 5.0})[0])
    given = Decoding(sampling={"num_steps": 2}, guidance=Guidance(1.5))
    assert model.decoding(given).sampling == DiffusionSampling(num_steps=2)
    assert type(model.decoding(given)) is type(own)
    # two streams in two ways, a piece of each in turn
    slow, fast = model.stream("rain"), model.stream("rain", sampling={"temperature": 0.2})
    pieces = list(zip(slow, fast, strict=True))
    joined = [torch.cat([pair[side] for pair in pieces]) for side in (0, 1)]
    torch.testing.assert_close(joined[0], torch.cat(list(model.stream("rain"))), **TOLERANCE)
    assert (joined[0] - joined[1]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0.5}, "0.5 is no multiple of 0.16, the tokenizer's time slice; nearest are 0.48 and 0.64"),
        ({"seconds": 0.8}, "seconds: got 0.8, expected 0.16 to 0.64"),
        ({"seconds": 0}, "seconds: got 0, expected 0.16 to 0.64"),
        ({"seconds": float("nan")}, "seconds: got nan, expected 0.16 to 0.64"),
        ({"tokens_per_cal": 3}, "not a setting of decoding; .*did you mean 'tokens_per_call'"),
        ({"sampling": {"num_step": 3}}, "'num_step' is not a setting of DiffusionHead; .*did you mean 'num_steps'"),
        ({"sampling": {"num_steps": 0}}, "expected a number of steps from 1 up, got 0"),
        ({"sampling": {"solver": "nonsense"}}, "'nonsense' is not a solver of this head"),
        ({"sampling": {"temperature": -1.0}}, "temperature: expected a number from 0 up, got -1.0"),
        ({"sampling": {"temperature": float("nan")}}, "temperature: expected a number from 0 up, got nan"),
        ({"sampling": {"x0_limit": -5.0}}, "x0_limit: expected a number above 0, or null, got -5.0"),
        ({"guidance": {"sale": 3}}, "decoding.guidance: .*'sale'"),
        ({"guidance": 3}, "decoding.guidance: got 3, expected a Guidance; .* guidance_scale"),
        ({"tokens_per_call": 0}, "decoding.tokens_per_call: expected a number from 1 up, got 0"),
        ({"random_order": True}, "decoding.random_order: true fills gaps"),  # the model is not trained for it
        ({"decoding": MaskedDecoding()}, "got MaskedDecoding, expected"),
        ({"continue_from": torch.zeros(2559)}, "got 0.159.* s at 16000 Hz, expected 0.16 s or more, and less than"),
        ({"continue_from": torch.zeros(CLIP_SAMPLES)}, "less than the clip's 0.64: cut it"),
        ({"continue_from": torch.zeros(5120), "seconds": 0.32}, "less than the clip's 0.32: cut it"),
        ({"continue_from": torch.zeros(3, 5120)}, r"shape \(3, 5120\); expected \[samples\]"),
        ({"continue_from": torch.full((5120,), float("inf"))}, "all finite"),
    ],
)
def test_what_can_not_be_made_is_said_at_once(arguments: dict[str, Any], message: str) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=message) as caught:
        model.generate(["rain"], **arguments)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        model.stream("rain", **arguments)


def test_other_bad_arguments(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="seed: got 2 for 1 captions"):
        model.generate(["rain"], seed=[1, 2])
    with pytest.raises(ValueError, match="batch_size: got 0"):
        model.generate(["rain"], batch_size=0)
    with pytest.raises(ValueError, match="'!!' has no words"):
        model.generate(["!!"])
    system = tiny_trained()
    system.preprocessing = None
    with pytest.raises(ValueError, match="holds no tokenizer"):
        TextToAudio(system)
    with pytest.raises(ValueError, match="no checkpoint there"):
        TextToAudio.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        TextToAudio.from_pretrained(tmp_path / "nowhere")

"""The mel tokenizer: a linear transform with an exact shape, its order of tokens, and how it travels."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mntp.audio.log_mel import LOG_FLOOR, LogMel, normalise
from mntp.tokenizers import TOKENIZERS, MelTokenizer, build_tokenizer, tokenizer_spec


def sounds(count: int = 24, samples: int = 20_480, seed: int = 0) -> Tensor:
    """Decaying tones over noise, [count, samples]."""
    generator = torch.Generator().manual_seed(seed)
    pitch = 150 * 2 ** (5 * torch.rand(count, 1, generator=generator))
    onset = torch.rand(count, 1, generator=generator)
    time = torch.arange(samples) / 16_000 - onset
    tone = torch.sin(2 * math.pi * pitch * time) * torch.exp(-5 * time.clamp(min=0)) * (time > 0)
    return normalise(tone + 0.02 * torch.randn(count, samples, generator=generator))


@pytest.fixture(scope="module")
def fitted() -> MelTokenizer:
    tokenizer = MelTokenizer(token_dim=32, num_griffin_lim_iterations=8)
    tokenizer.fit(sounds().split(5))
    return tokenizer


def test_all_components_give_the_mel_back() -> None:
    tokenizer = MelTokenizer(token_dim=256)
    waveforms = sounds()
    tokenizer.fit([waveforms])
    assert tokenizer.explained_variance.item() == pytest.approx(1.0)
    torch.testing.assert_close(
        tokenizer.decode_mel(tokenizer.encode(waveforms)), LogMel()(waveforms), atol=2e-3, rtol=0
    )


def test_tokens_of_the_training_set_are_uncorrelated_with_unit_variance(fitted: MelTokenizer) -> None:
    tokens = fitted.encode(sounds()).flatten(0, 1).double()
    torch.testing.assert_close(tokens.mean(dim=0), torch.zeros(32).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(tokens.T @ tokens / len(tokens), torch.eye(32).double(), atol=1e-3, rtol=0)


def test_components_are_the_best_linear_ones(fitted: MelTokenizer) -> None:
    """The error in the data equals the variance that is said to be lost, and a singular value decomposition agrees."""
    log_mel = LogMel()(sounds())
    patches = log_mel.view(24, 8, 16, 4, 16).transpose(2, 3).reshape(-1, 256)
    centred = patches - patches.mean(dim=0)
    energy = torch.linalg.svdvals(centred.double()).square()
    kept = (energy[:32].sum() / energy.sum()).item()
    assert fitted.explained_variance.item() == pytest.approx(kept, abs=1e-5)
    error = ((fitted.encode(sounds()) * fitted.scale) @ fitted.components + fitted.mean).flatten(0, 1) - patches
    assert 1 - (error.square().sum() / centred.square().sum()).item() == pytest.approx(kept, abs=1e-4)


def test_more_values_per_token_keep_more(fitted: MelTokenizer) -> None:
    coarse = MelTokenizer(token_dim=4, num_griffin_lim_iterations=8)
    coarse.fit([sounds()])
    assert coarse.explained_variance < fitted.explained_variance
    fine, rough = (tokenizer.reconstruction_error(sounds(4, seed=1)) for tokenizer in (fitted, coarse))
    assert fine["linear_rmse_db"] < rough["linear_rmse_db"]
    assert fine["waveform_rmse_db"] < rough["waveform_rmse_db"]
    assert fine["linear_rmse_db"] < fine["waveform_rmse_db"]


def test_tokens_are_time_major_with_frequency_inside(fitted: MelTokenizer) -> None:
    """Editing the sound in one slice changes that slice's tokens (and its neighbours' by the window's overlap)."""
    quiet = 1e-3 * torch.randn(1, 25_600, generator=torch.Generator().manual_seed(0))
    edited = quiet.clone()
    time = torch.arange(2560) / 16_000
    edited[:, 5 * 2560 : 6 * 2560] += 0.5 * torch.sin(2 * math.pi * 7000 * time) * torch.hann_window(2560)
    change = (fitted.encode(edited) - fitted.encode(quiet)).square().sum(dim=-1).view(10, 4)
    assert change.argmax().item() == 5 * 4 + 3
    assert change[:4].max() == 0
    assert change[7:].max() == 0


@pytest.mark.parametrize("seconds", [0.16, 2.56, 10.24])
def test_lengths_are_exact(fitted: MelTokenizer, seconds: float) -> None:
    samples = round(seconds * 16_000)
    tokens = fitted.encode(torch.zeros(1, samples))
    assert tokens.shape == (1, fitted.num_tokens(samples), 32)
    assert fitted.decode(tokens).shape == (1, samples)


def test_ten_seconds_are_256_tokens() -> None:
    assert MelTokenizer().num_tokens(163_840) == 256


def test_fitting_does_not_depend_on_how_the_clips_are_batched(fitted: MelTokenizer) -> None:
    again = MelTokenizer(token_dim=32)
    again.fit(iter(sounds()))
    torch.testing.assert_close(again.components, fitted.components, atol=1e-4, rtol=0)
    largest = again.components.gather(1, again.components.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()


def test_fitting_and_decoding_are_deterministic(fitted: MelTokenizer) -> None:
    again = MelTokenizer(token_dim=32, num_griffin_lim_iterations=8)
    again.fit(sounds().split(5))
    assert again.fingerprint() == fitted.fingerprint()
    tokens = fitted.encode(sounds(2))
    assert again.decode(tokens).equal(fitted.decode(tokens))


def test_a_set_without_variety_does_not_blow_up() -> None:
    tokenizer = MelTokenizer(token_dim=8)
    half_silent = torch.zeros(2, 2560)
    half_silent[1] = 0.1 * torch.sin(torch.arange(2560) * 0.3)
    tokenizer.fit([half_silent])
    assert tokenizer.encode(half_silent).abs().max() < 10


def test_wild_tokens_stay_within_what_a_waveform_can_have(fitted: MelTokenizer) -> None:
    tokens = 50 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
    log_mel = fitted.decode_mel(tokens)
    assert log_mel.min() >= math.log(LOG_FLOOR)
    loudest = 0.5 * torch.where(torch.cos(2 * math.pi * 1000 / 16_000 * torch.arange(2560)) >= 0, 1.0, -1.0)
    assert LogMel()(loudest[None]).max() < log_mel.max() < LogMel()(loudest[None]).max() + 1.5
    assert fitted.decode(tokens).isfinite().all()


def test_a_tokenizer_travels_as_a_spec(fitted: MelTokenizer) -> None:
    spec = tokenizer_spec(fitted)
    assert set(spec["state"]) == {"mean", "components", "scale", "explained_variance"}
    twin = build_tokenizer(spec)
    assert isinstance(twin, MelTokenizer)
    assert twin.settings() == fitted.settings()
    assert twin.encode(sounds(2)).equal(fitted.encode(sounds(2)))
    spec["state"]["mean"].zero_()
    assert fitted.mean.abs().sum() > 0, "the spec must not share memory with the tokenizer"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"class": "MelTokeniser"},
            "unknown tokenizer class 'MelTokeniser'; known: AudioLDM, MelTokenizer; did you mean",
        ),
        ({"settings": {"token_dims": 32}}, "does not take its settings.*token_dims"),
        ({"settings": {"token_dim": 16}}, "does not fit its settings.*components, scale"),
        ({"state": {}}, "components, explained_variance, mean, scale"),
        ({"fingerprint": "0" * 12}, "expected 000000000000: it was altered"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(fitted: MelTokenizer, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_tokenizer(tokenizer_spec(fitted) | change)


def test_an_altered_state_is_refused(fitted: MelTokenizer) -> None:
    spec = tokenizer_spec(fitted)
    spec["state"]["mean"][17] += 1e-6
    with pytest.raises(ValueError, match="altered"):
        build_tokenizer(spec)


def test_misuse_is_answered_in_words(fitted: MelTokenizer) -> None:
    with pytest.raises(ValueError, match="token_dim is 257"):
        MelTokenizer(token_dim=257)
    with pytest.raises(ValueError, match="num_griffin_lim_iterations is -1"):
        MelTokenizer(num_griffin_lim_iterations=-1)
    with pytest.raises(ValueError, match="not fitted"):
        MelTokenizer().encode(torch.zeros(1, 2560))
    with pytest.raises(ValueError, match="no waveform"):
        MelTokenizer().fit([])
    with pytest.raises(ValueError, match="not finite"):
        MelTokenizer().fit([torch.full((1, 2560), math.nan)])
    with pytest.raises(ValueError, match="2561 samples does not fill"):
        fitted.encode(torch.zeros(1, 2561))
    for shape in [(1, 6, 32), (1, 8, 16), (8, 32)]:
        with pytest.raises(ValueError, match=r"can't be decoded; expected \[B, multiple of 4, 32\]"):
            fitted.decode(torch.zeros(shape))


def test_the_registry_names_classes_as_they_are_called() -> None:
    assert {name: cls.__name__ for name, cls in TOKENIZERS.items()} == {name: name for name in TOKENIZERS}
    assert set(TOKENIZERS) == {"MelTokenizer", "AudioLDM"}


def test_the_fingerprint_never_changes() -> None:
    """Stores and checkpoints depend on it: a value from the first release."""
    tokenizer = MelTokenizer(token_dim=2)
    tokenizer.components[0, 0] = 1
    assert tokenizer.fingerprint() == "9f98a78f4d0f"

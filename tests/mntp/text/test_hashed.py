"""The hashed text encoder: same words, same vectors; order matters; any script."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mntp.text import TEXT_ENCODERS, HashedText, build_text_encoder, text_spec


def pooled(caption: str, **settings: int) -> Tensor:
    return HashedText(**settings).encode([caption])["pooled"][0][0]


def words(caption: str, **settings: int) -> Tensor:
    return HashedText(**settings).encode([caption])["words"][0]


def cosine(first: Tensor, second: Tensor) -> float:
    return torch.cosine_similarity(first, second, dim=0).item()


def test_word_vectors_are_standard_normal_and_unrelated() -> None:
    vectors = torch.cat([words(f"word{i}", dim=128) for i in range(400)])
    assert vectors.dtype == torch.float32
    assert abs(vectors.mean().item()) < 0.02
    assert vectors.std().item() == pytest.approx(1.0, abs=0.02)
    assert vectors.pow(4).mean().item() == pytest.approx(3.0, abs=0.2)
    similarity = torch.corrcoef(vectors) - torch.eye(400)
    assert similarity.abs().max() < 0.5


def test_each_word_has_its_vector_wherever_it_stands() -> None:
    caption = words("a low siren rises over a low hum")
    assert caption[0].equal(caption[5])
    assert caption[1].equal(words("LOW")[0])
    assert not caption[1].equal(caption[2])


@pytest.mark.parametrize("variant", ["A siren, then rain.", "a siren then rain", "  a\tSIREN,\nthen   «rain»!"])
def test_case_spaces_and_punctuation_do_not_count(variant: str) -> None:
    assert words(variant).equal(words("a siren then rain"))
    assert pooled(variant).equal(pooled("a siren then rain"))


def test_punctuation_separates_words_but_joiners_do_not() -> None:
    assert len(words("dog,cat")) == 2
    assert len(words("a rain-like noise, 'the dog's'")) == 5


def test_pooled_hears_order_and_all_words() -> None:
    first, second = pooled("a siren, then rain"), pooled("rain, then a siren")
    assert 0.4 < cosine(first, second) < 0.95
    assert cosine(first, pooled("three short clicks")) < 0.4
    assert cosine(first, pooled("a siren, then wind")) > 0.4
    long = " ".join(f"word{i}" for i in range(20))
    assert len(words(long)) == 16
    assert not pooled(long).equal(pooled(long + " more"))


def test_pooled_has_unit_variance_for_short_and_long_captions() -> None:
    for caption in ("rain", "rain rain rain rain rain", " ".join(f"w{i}" for i in range(40))):
        assert pooled(caption).square().mean().item() == pytest.approx(1.0, abs=1e-5)


def test_shapes_follow_the_streams() -> None:
    encoder = HashedText(dim=8, slots=3)
    states = encoder.encode(["one", "one two three four five"])
    assert [tuple(state.shape) for state in states["pooled"]] == [(1, 8), (1, 8)]
    assert [tuple(state.shape) for state in states["words"]] == [(1, 8), (3, 8)]
    assert {name: (stream.dim, stream.max_length) for name, stream in encoder.streams.items()} == {
        "pooled": (8, 1),
        "words": (8, 3),
    }


@pytest.mark.parametrize(
    "caption", ["雨の音がする", "дождь идёт", "बारिश की आवाज़", "🎵 🔔", "a\u0301", "lone \ud800 half", "³"]
)
def test_any_script_is_text(caption: str) -> None:
    assert words(caption).isfinite().all()


def test_composed_and_decomposed_letters_are_the_same_word() -> None:
    assert words("cafe\u0301").equal(words("caf\u00e9"))


@pytest.mark.parametrize("caption", ["", "  \n", "...", "- ' -"])
def test_a_caption_without_words_is_refused(caption: str) -> None:
    with pytest.raises(ValueError, match="has no words") as caught:
        HashedText().encode(["fine", caption])
    assert repr(caption) in str(caught.value)


def test_vectors_are_the_same_in_another_process() -> None:
    code = "from mntp.text import HashedText; print(HashedText().encode(['a low siren'])['pooled'][0].tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(pooled("a low siren")[None].tolist())


def test_vectors_never_change() -> None:
    """Stores and checkpoints depend on them: values from the first release."""
    torch.testing.assert_close(
        words("siren", dim=4)[0], torch.tensor([-0.358201, -0.033291, 0.661682, 0.360795]), atol=1e-5, rtol=0
    )


def test_an_encoder_travels_as_a_spec() -> None:
    spec = text_spec(HashedText(dim=8, slots=3))
    twin = build_text_encoder(spec)
    assert isinstance(twin, HashedText)
    assert twin.settings() == {"dim": 8, "slots": 3}
    assert all(cls.__name__ == name for name, cls in TEXT_ENCODERS.items())
    with pytest.raises(ValueError, match=r"unknown text encoder class 'HashText'; .*; did you mean 'HashedText'"):
        build_text_encoder(spec | {"class": "HashText"})
    with pytest.raises(ValueError, match="altered"):
        build_text_encoder(spec | {"settings": {"dim": 8, "slots": 4}})


@pytest.mark.parametrize("settings", [{"dim": 0}, {"slots": 0}])
def test_sizes_below_one_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        HashedText(**settings)

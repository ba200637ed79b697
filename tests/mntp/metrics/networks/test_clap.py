"""The CLAP score's procedure, on a tiny random CLAP: rates, crop, stretch, captions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample
from transformers import BatchEncoding, ClapConfig, ClapModel

from mntp.metrics.networks.clap import ClapScorer
from mntp.metrics.networks.read_clip import read_clip
from tests.mntp.metrics.networks.test_spectrograms import FRONT_ENDS, chord, panns_reference
from tests.mntp.pretrained.layouts import randomise


class Letters:
    """Stands in for RoBERTa's tokenizer: a letter is a token."""

    def __init__(self, offset: int = 2) -> None:
        self.asked: list[dict[str, Any]] = []
        self.offset = offset

    def get_vocab(self) -> dict[str, int]:
        return {letter: self.offset + ord(letter) % 40 for letter in "abcdefghijklmnopqrstuvwxyz "}

    def __call__(self, captions: str | list[str], **options: Any) -> BatchEncoding:
        if isinstance(captions, str):
            return BatchEncoding({"input_ids": [self.offset + ord(letter) % 40 for letter in captions]})
        self.asked.append(options | {"captions": captions})
        length = options["max_length"]
        ids = [[2 + ord(letter) % 40 for letter in caption][:length] for caption in captions]
        padded = torch.tensor([row + [1] * (length - len(row)) for row in ids])
        return BatchEncoding({"input_ids": padded, "attention_mask": (padded != 1).long()})


def tiny_clap() -> ClapModel:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    audio = {
        "patch_embeds_hidden_size": 4,
        "hidden_size": 32,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 1, 1],
    }
    config = ClapConfig(
        text_config=text | {"vocab_size": 50, "projection_dim": 8, "layer_norm_eps": 1e-5},
        audio_config=audio | {"projection_dim": 8},
        projection_dim=8,
    )
    model = ClapModel(config)
    randomise(model)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def scorer() -> ClapScorer:
    return ClapScorer(tiny_clap(), Letters()).eval()  # type: ignore[arg-type]  # all that is asked of a tokenizer


def test_the_text_tokenizers_content_is_in_the_fingerprint(scorer: ClapScorer) -> None:
    """Any vocabulary of the right size was once taken for CLAP's own."""
    found = scorer.fingerprint()
    assert len(found) == 12
    assert ClapScorer(scorer.model, Letters()).eval().fingerprint() == found  # type: ignore[arg-type]
    assert ClapScorer(scorer.model, Letters(offset=3)).eval().fingerprint() != found  # type: ignore[arg-type]


def cubic_stretch(frames: np.ndarray, length: int) -> np.ndarray:
    """Bicubic (a = -0.75) along the first axis; first and last frame stay in place, edges are repeated."""

    def weight(x: float) -> float:
        x, a = abs(x), -0.75
        return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4)

    stretched = np.zeros((length, frames.shape[1]))
    for index in range(length):
        place = index * (len(frames) - 1) / (length - 1)
        first = int(np.floor(place))
        for tap in range(first - 1, first + 3):
            stretched[index] += weight(place - tap) * frames[np.clip(tap, 0, len(frames) - 1)]
    return stretched


def embed(model: ClapModel, log_mel: np.ndarray) -> Tensor:
    """What a CLAP makes of 1024 whole frames, where nothing is left to be stretched."""
    image = torch.from_numpy(log_mel).float()[None, None]
    return model.get_audio_features(input_features=image).pooler_output[0]


@pytest.mark.parametrize("samples", [48_000, 100_000])
def test_short_clips_are_stretched_and_not_repeated(scorer: ClapScorer, samples: int) -> None:
    clip = chord(samples)
    frames = panns_reference(clip.double().numpy(), *FRONT_ENDS["CLAP"])
    found = scorer(clip[None])["audio_embedding"][0]
    torch.testing.assert_close(found, embed(scorer.model, cubic_stretch(frames, 1024)), atol=1e-4, rtol=1e-3)
    padded = np.concatenate([frames, np.full((1024 - len(frames), 64), -100.0)])
    for wrong in (np.resize(frames, (1024, 64)), padded):
        assert (found - embed(scorer.model, wrong)).abs().max() > 0.01


def test_long_clips_are_cut_after_ten_seconds(scorer: ClapScorer) -> None:
    clip = chord(500_000)[None]
    found = scorer(clip)["audio_embedding"]
    assert torch.equal(found, scorer(clip)["audio_embedding"])
    assert torch.equal(found, scorer(clip[:, :480_000])["audio_embedding"])
    assert (found - scorer(clip[:, -480_000:])["audio_embedding"]).abs().max() > 1e-3
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1))


def test_files_pass_32_khz_on_their_way_to_48_khz(tmp_path: Path, scorer: ClapScorer) -> None:
    path = tmp_path / "a.wav"
    noise = 0.1 * np.random.default_rng(0).standard_normal((500_000, 2)) + 0.1
    soundfile.write(path, noise, 44_100, subtype="FLOAT")
    found = scorer.read(path)
    assert torch.equal(found, resample(read_clip(path, 32_000), 32_000, 48_000)[:480_000])
    assert len(found) == 480_000
    # 44.1 kHz has sound above 18 kHz, 32 kHz has not.
    direct = read_clip(path, 48_000)[:480_000]
    above = [torch.fft.rfft(waveform)[180_000:].abs().mean() for waveform in (found, direct)]
    assert above[0] < 0.05 * above[1]
    soundfile.write(path, noise[:441], 44_100, subtype="FLOAT")
    assert len(scorer.read(path)) == 48_000  # one second: 32,000 samples at 32 kHz


def test_captions_are_embedded_alone_filled_up_to_77_tokens(scorer: ClapScorer) -> None:
    captions = ["a dog barks", "rain", "a" * 200]
    found = scorer.embed_text(captions)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found[1:2], scorer.embed_text(["rain"]))
    torch.testing.assert_close(found[2:3], scorer.embed_text(["a" * 77]))
    assert (found[2] - scorer.embed_text(["a" * 76])[0]).abs().max() > 1e-5
    ids = torch.tensor([[2 + ord(letter) % 40 for letter in "rain"]])
    expected = scorer.model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids)).pooler_output
    torch.testing.assert_close(found[1:2], expected)
    asked = scorer.tokenizer.asked[0]
    assert asked["padding"] == "max_length" and asked["truncation"] and asked["max_length"] == 77


def test_many_captions_go_in_parts(scorer: ClapScorer) -> None:
    captions = [f"caption {number}" for number in range(130)]
    found = scorer.embed_text(captions)
    assert found.shape == (130, 8)
    torch.testing.assert_close(found[129:], scorer.embed_text(captions[129:]))


def test_nothing_is_replaced_at_random(scorer: ClapScorer) -> None:
    """The toolkit's branch replaces one embedding in ten by that of the empty caption."""
    captions = ["rain"] * 40
    found = scorer.embed_text(captions)
    torch.testing.assert_close(found, found[:1].expand_as(found))
    heard = scorer(chord(48_000).expand(40, -1))["audio_embedding"]
    torch.testing.assert_close(heard, heard[:1].expand_as(heard))

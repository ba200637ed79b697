"""Cnn14 against plain convolutions in a loop; its file's layout; files that don't fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mntp.metrics.networks.cnn14 import Cnn14
from tests.mntp.metrics.networks.test_spectrograms import PANNS, panns_filters, panns_reference
from tests.mntp.pretrained.layouts import layout, randomise, tensors

SIZES: dict[str, Any] = {"width": 2, "num_classes": 5}
RATES = {16_000: PANNS["16 kHz"], 32_000: PANNS["32 kHz"]}


def small(sample_rate: int = 16_000) -> Cnn14:
    network = Cnn14(sample_rate, **SIZES).eval()
    randomise(network)
    return network


def file_of(network: Cnn14, sample_rate: int) -> dict[str, Any]:
    """A checkpoint of the public layout: with its front end, and the sampler's arrays of numpy."""
    rate, num_fft, _, f_min, f_max = RATES[sample_rate]
    front_end = {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(num_fft // 2 + 1, 1, num_fft),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(num_fft // 2 + 1, 1, num_fft),
        "logmel_extractor.melW": torch.from_numpy(panns_filters(rate, num_fft, f_min, f_max).astype(np.float32)),
    }
    sampler = {"indexes_per_class": [np.arange(4), np.arange(2)], "queue": [1], "pointers_of_classes": [0, 1]}
    return {"iteration": 7, "model": front_end | network.state_dict(), "sampler": sampler}


def normalised(state: dict[str, Tensor], name: str, x: Tensor, dim: int) -> Tensor:
    shape = [-1 if axis == dim else 1 for axis in range(x.dim())]
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].double().view(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def plain(
    state: dict[str, Tensor], log_mel: Tensor, pooled: str = "max + mean", relu: bool = True
) -> dict[str, Tensor]:
    """Features and logits of decibels [frames, 64] in float64, from a state dict alone."""
    x = normalised(state, "bn0", log_mel, dim=1)[None, None]
    for block in range(1, 7):
        for half in (1, 2):
            x = F.conv2d(x, state[f"conv_block{block}.conv{half}.weight"].double(), padding=1)
            x = normalised(state, f"conv_block{block}.bn{half}", x, dim=1).relu()
        if block < 6:
            x = F.avg_pool2d(x, 2)
    x = x.mean(dim=3)
    x = {"max + mean": x.amax(2) + x.mean(2), "mean": x.mean(2), "max": x.amax(2)}[pooled]
    x = F.linear(x, state["fc1.weight"].double(), state["fc1.bias"].double())
    logits = F.linear(x.relu(), state["fc_audioset.weight"].double(), state["fc_audioset.bias"].double())
    return {"features": x.relu() if relu else x, "logits": logits}


@pytest.mark.parametrize("sample_rate", RATES)
def test_hears_as_the_definition(sample_rate: int) -> None:
    network = small(sample_rate)
    clips = 0.3 * torch.randn(2, 33_000, generator=torch.Generator().manual_seed(3))
    found = network(clips)
    assert {name: tensor.shape for name, tensor in found.items()} == {"features": (2, 64), "logits": (2, 5)}
    for row, clip in enumerate(clips):
        log_mel = torch.from_numpy(panns_reference(clip.double().numpy(), *RATES[sample_rate]))
        for name, expected in plain(network.state_dict(), log_mel).items():
            torch.testing.assert_close(found[name][row].double(), expected[0], atol=2e-4, rtol=1e-4)
        assert (found["features"][row] == 0).any()
        for wrong in ({"pooled": "mean"}, {"pooled": "max"}, {"relu": False}):
            features = plain(network.state_dict(), log_mel, **wrong)["features"]  # type: ignore[arg-type]
            assert (found["features"][row] - features[0]).abs().max() > 0.01


@pytest.mark.parametrize("sample_rate", RATES)
def test_names_and_shapes_are_those_of_the_public_file(sample_rate: int) -> None:
    with torch.device("meta"):
        network = Cnn14(sample_rate)
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    public = layout("cnn14_16k") | (layout("cnn14_32k") if sample_rate == 32_000 else {})
    front_end = {name: public.pop(name) for name in list(public) if "extractor" in name}
    assert shapes == public
    assert front_end["logmel_extractor.melW"] == list(Cnn14(sample_rate, **SIZES).log_mel.filters.shape)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("sample_rate", RATES)
def test_a_file_of_either_format_hears_as_its_writer(tmp_path: Path, sample_rate: int, legacy: bool) -> None:
    network, path = small(sample_rate), tmp_path / "cnn14.pth"
    torch.save(file_of(network, sample_rate), path, _use_new_zipfile_serialization=not legacy)
    loaded = Cnn14.from_checkpoint(path, sample_rate, **SIZES)
    clips = torch.randn(1, 32_000)
    assert torch.equal(loaded(clips)["logits"], network(clips)["logits"])
    assert loaded.fingerprint() == network.fingerprint()
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_layout_names_the_front_end_that_is_checked() -> None:
    assert {name for name in tensors("cnn14_16k") if "extractor" in name} == {
        name for name in file_of(small(), 16_000)["model"] if "extractor" in name
    }


@pytest.mark.parametrize("sample_rate", RATES)
def test_a_file_of_the_other_rate_is_named(tmp_path: Path, sample_rate: int) -> None:
    path, other = tmp_path / "cnn14.pth", 48_000 - sample_rate
    torch.save(file_of(small(), other), path)
    with pytest.raises(ValueError, match=rf"cnn14\.pth: .*not the mel filters of {sample_rate} Hz"):
        Cnn14.from_checkpoint(path, sample_rate, **SIZES)


def test_filters_from_another_lowest_frequency_are_told_apart(tmp_path: Path) -> None:
    path, content = tmp_path / "cnn14.pth", file_of(small(), 16_000)
    filters = panns_filters(16_000, 512, 0, 8_000).astype(np.float32)
    content["model"]["logmel_extractor.melW"] = torch.from_numpy(filters)
    torch.save(content, path)
    with pytest.raises(ValueError, match="not the mel filters of 16000 Hz"):
        Cnn14.from_checkpoint(path, **SIZES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logmel_extractor.melW": None}, r"lacks logmel_extractor\.melW"),
        ({"conv_block3.bn2.running_var": None}, r"lacks conv_block3\.bn2\.running_var"),
        ({"fc_transfer.bias": torch.ones(5)}, r"has unexpected tensors: fc_transfer\.bias"),
        ({"fc1.bias": torch.ones(3)}, r"shape than the model for fc1\.bias \(\[3\], expected \[64\]\)"),
    ],
    ids=["no filters", "missing", "extra", "reshaped"],
)
def test_a_file_of_another_layout_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path, content = tmp_path / "cnn14.pth", file_of(small(), 16_000)
    state = content["model"] | change
    torch.save(content | {"model": {name: value for name, value in state.items() if value is not None}}, path)
    with pytest.raises(ValueError, match=rf"cnn14\.pth: .*{message}"):
        Cnn14.from_checkpoint(path, **SIZES)


def test_a_bare_state_dict_is_no_checkpoint_of_panns(tmp_path: Path) -> None:
    path = tmp_path / "cnn14.pth"
    torch.save(small().state_dict(), path)
    with pytest.raises(ValueError, match=r"cnn14\.pth: expected the key 'model', got bn0"):
        Cnn14.from_checkpoint(path, **SIZES)


def test_there_are_two_rates() -> None:
    with pytest.raises(ValueError, match="16000 or 32000 Hz, got 44100"):
        Cnn14(44_100)

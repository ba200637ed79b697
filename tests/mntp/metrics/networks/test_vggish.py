"""VGGish against plain convolutions in a loop; its file's layout; files that don't fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mntp.metrics.networks.vggish import VGGish
from tests.mntp.pretrained.layouts import layout, randomise, tensors

SIZES: dict[str, Any] = {"width": 2, "num_hidden": 16}
POOL_BEHIND = ("features.0", "features.3", "features.8", "features.13")


def small() -> VGGish:
    network = VGGish(**SIZES).eval()
    randomise(network)
    return network


def plain(state: dict[str, Tensor], patches: Tensor, last_relu: bool = False, channels_last: bool = True) -> Tensor:
    """[P, 128] of patches [P, 96, 64], from a state dict alone."""
    x = patches[:, None]
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    for name in (name for name in names if name.startswith("features")):
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).relu()
        if name in POOL_BEHIND:
            x = F.max_pool2d(x, 2)
    x = (x.permute(0, 2, 3, 1) if channels_last else x).reshape(len(x), -1)
    for name in (name for name in names if name.startswith("embeddings")):
        x = F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
        x = x.relu() if last_relu or name != "embeddings.4" else x
    return x


def waveform(samples: int = 33_000) -> Tensor:
    return 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(3))


def test_every_patch_of_every_clip_goes_through_the_network() -> None:
    network, clips = small(), waveform()
    found = network(clips)["patches"]
    assert found.shape == (2, 2, 128) and found.dtype == torch.float32
    for heard, clip in zip(found, clips, strict=True):
        patches = network.log_mel(clip[None])[0]
        torch.testing.assert_close(heard, plain(network.state_dict(), patches))
        assert (heard < 0).any()
        for wrong in ({"last_relu": True}, {"channels_last": False}):
            assert (heard - plain(network.state_dict(), patches, **wrong)).abs().max() > 0.01


def test_names_and_shapes_are_those_of_the_public_file(tmp_path: Path) -> None:
    path = tmp_path / "vggish.pth"
    torch.save(tensors("vggish"), path)
    with torch.device("meta"):
        network = VGGish.from_checkpoint(path)
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == layout("vggish")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_either_format_hears_as_its_writer(tmp_path: Path, legacy: bool) -> None:
    network, path = small(), tmp_path / "vggish.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    loaded = VGGish.from_checkpoint(path, **SIZES)
    assert torch.equal(loaded(waveform())["patches"], network(waveform())["patches"])
    assert loaded.fingerprint() == network.fingerprint()
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings.4.bias": None}, r"lacks embeddings\.4\.bias"),
        ({"pproc.pca_means": torch.ones(128)}, r"has unexpected tensors: pproc\.pca_means"),
        ({"features.0.bias": torch.ones(3)}, r"shape than the model for features\.0\.bias \(\[3\], expected \[2\]\)"),
        ({"epoch": 3}, "no mapping of names to tensors"),
    ],
    ids=["missing", "extra", "reshaped", "value"],
)
def test_a_file_of_another_layout_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path, state = tmp_path / "vggish.pth", small().state_dict() | change
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    with pytest.raises(ValueError, match=rf"vggish\.pth: .*{message}"):
        VGGish.from_checkpoint(path, **SIZES)

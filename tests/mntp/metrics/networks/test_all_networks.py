"""What holds for every network that embeds clips."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mntp.audio.files import AudioError
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.clap import ClapScorer
from mntp.metrics.networks.cnn14 import Cnn14
from mntp.metrics.networks.judge import Judge
from mntp.metrics.networks.vggish import VGGish
from tests.mntp.metrics.networks.test_clap import Letters, tiny_clap
from tests.mntp.pretrained.layouts import randomise

CPU = torch.device("cpu")


def seeded(network: AudioNetwork, seed: int = 0) -> AudioNetwork:
    randomise(network, seed)
    return network.eval()


BUILD: dict[str, Callable[[], AudioNetwork]] = {
    "Cnn14 16 kHz": lambda: seeded(Cnn14(16_000, width=2, num_classes=5)),
    "Cnn14 32 kHz": lambda: seeded(Cnn14(32_000, width=2, num_classes=5)),
    "VGGish": lambda: seeded(VGGish(width=2, num_hidden=16)),
    "CLAP": lambda: ClapScorer(tiny_clap(), Letters()).eval(),  # type: ignore[arg-type]
    "Judge": lambda: seeded(Judge(["bell", "horn"])),
}


@pytest.fixture(scope="module", params=BUILD)
def network(request: pytest.FixtureRequest) -> AudioNetwork:
    return BUILD[request.param]()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gives_what_it_names_without_gradients(network: AudioNetwork) -> None:
    found = network(noise(2, 50_000))
    assert tuple(found) == network.outputs
    for output in found.values():
        assert len(output) == 2 and output.dtype == torch.float32 and not output.requires_grad
        assert torch.isfinite(output).all()


def test_a_clip_is_embedded_as_if_alone(network: AudioNetwork) -> None:
    clips = noise(3, 50_000) * torch.tensor([[1.0], [0.01], [50.0]])
    together = network(clips)
    for row in range(3):
        alone = network(clips[row : row + 1])
        for name, output in alone.items():
            torch.testing.assert_close(together[name][row : row + 1], output, atol=1e-4, rtol=1e-4)
    other = network(clips.flip(0))
    for name, output in together.items():
        torch.testing.assert_close(other[name].flip(0), output, atol=1e-4, rtol=1e-4)


def test_in_training_mode_it_refuses_clips(network: AudioNetwork) -> None:
    network.train()
    with pytest.raises(AssertionError, match="call eval"):
        network(noise(2, 50_000))
    network.eval()


def test_a_callers_autocast_does_not_reach_it(network: AudioNetwork) -> None:
    clips = noise(2, 50_000)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(clips)
    for name, output in network(clips).items():
        assert torch.equal(found[name], output)


@pytest.mark.parametrize(("seconds", "rate", "channels"), [(0.05, 16_000, 1), (1.0, 8_000, 1), (2.5, 44_100, 2)])
def test_reads_and_hears_files_of_any_rate_and_length(
    network: AudioNetwork, tmp_path: Path, seconds: float, rate: int, channels: int
) -> None:
    samples = noise(int(seconds * rate), channels).numpy()
    soundfile.write(tmp_path / "a.wav", samples, rate)
    waveform = network.read(tmp_path / "a.wav")
    assert waveform.dim() == 1 and waveform.dtype == torch.float32
    assert len(waveform) >= int(seconds * network.sample_rate)
    assert all(torch.isfinite(output).all() for output in network(waveform[None]).values())
    samples[:, 1:] = 0  # the other channels are not read
    soundfile.write(tmp_path / "b.wav", samples, rate)
    assert torch.equal(network.read(tmp_path / "b.wav"), waveform)


def test_a_damaged_file_is_named(network: AudioNetwork, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.1, np.nan]), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: .*not finite"):
        network.read(tmp_path / "a.wav")


@pytest.mark.parametrize("name", BUILD)
def test_a_fingerprint_tells_networks_apart_that_hear_otherwise(name: str) -> None:
    network, again = BUILD[name](), BUILD[name]()
    again.load_state_dict(network.state_dict())
    assert len(network.fingerprint()) == 12
    assert network.fingerprint() == again.fingerprint()
    with torch.no_grad():
        next(again.parameters()).view(-1)[0] += 1e-6
    assert network.fingerprint() != again.fingerprint()


def test_the_two_rates_of_cnn14_have_fingerprints_of_their_own() -> None:
    low, high = (seeded(Cnn14(rate, width=2, num_classes=5)) for rate in (16_000, 32_000))
    assert {*low.state_dict()} == {*high.state_dict()}
    assert low.fingerprint() != high.fingerprint()


def test_the_hash_of_a_judges_weights_is_that_of_the_judges_in_use() -> None:
    """A judge's file is refused if its weights have another hash than the one written beside them."""
    judge = Judge(["bell", "horn"], num_features=4, num_embedding=3)
    with torch.no_grad():
        for tensor in judge.state_dict().values():
            tensor.fill_(1)
    assert judge.weights_hash() == "b4f6bdda5830"

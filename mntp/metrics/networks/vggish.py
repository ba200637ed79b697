"""VGGish, the network of the Frechet audio distance, with the key layout of harritaylor/torchvggish."""

from pathlib import Path
from typing import ClassVar, Self

from einops import rearrange
from torch import Tensor, nn

from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.read_clip import read_clip
from mntp.metrics.networks.spectrograms import VGGishLogMel
from mntp.pretrained.checkpoints import load_strictly, read_checkpoint, state_dict_of

NUM_EMBEDDING = 128


class VGGish(AudioNetwork):
    """Eleven layers over patches of 0.96 s, without the last ReLU, the PCA and the quantisation (as the toolkit).

    The output `patches` is [B, P, 128], signed; a Frechet distance pools the patches of all clips.

    Args:
        width: channels of the first convolution; the public checkpoint has 64.
        num_hidden: width of the two hidden linear layers; there 4096.
    """

    sample_rate = 16_000
    outputs: ClassVar[tuple[str, ...]] = ("patches",)
    feature_version = "toolkit 16000, VGGish log-mel, v1"

    def __init__(self, width: int = 64, num_hidden: int = 4096) -> None:
        super().__init__()
        self.log_mel = VGGishLogMel()
        self.features = nn.Sequential(
            *_convolution(1, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 4 * width),
            *_convolution(4 * width, 4 * width),
            nn.MaxPool2d(2),
            *_convolution(4 * width, 8 * width),
            *_convolution(8 * width, 8 * width),
            nn.MaxPool2d(2),
        )
        self.embeddings = nn.Sequential(
            nn.Linear(6 * 4 * 8 * width, num_hidden),
            nn.ReLU(),
            nn.Linear(num_hidden, num_hidden),
            nn.ReLU(),
            nn.Linear(num_hidden, NUM_EMBEDDING),
        )

    @classmethod
    def from_checkpoint(cls, path: Path, width: int = 64, num_hidden: int = 4096) -> Self:
        """Load `vggish-10086976.pth`, or a file of its layout and other sizes, frozen and on the CPU.

        Raises:
            ValueError: the file is missing, damaged, or of another layout.
        """
        network = cls(width, num_hidden)
        load_strictly(network, state_dict_of(read_checkpoint(path, legacy=True), None, path), path)
        return network.eval().requires_grad_(False)

    def read(self, path: Path) -> Tensor:
        """As the toolkit at 16 kHz (`read_clip`)."""
        return read_clip(path, self.sample_rate)

    def embed(self, waveform: Tensor) -> dict[str, Tensor]:
        """Embed every whole patch of 0.96 s of waveform [B, samples]."""
        patches = self.log_mel(waveform)
        maps = self.features(rearrange(patches, "b p t f -> (b p) 1 t f"))
        # The checkpoint's linear layers read channels last, as TensorFlow's did.
        embedded = self.embeddings(rearrange(maps, "n c t f -> n (t f c)"))
        return {"patches": rearrange(embedded, "(b p) e -> b p e", b=len(waveform))}


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU()

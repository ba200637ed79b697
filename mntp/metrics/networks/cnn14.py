"""Cnn14 of PANNs, AudioSet's tagger, with the key layout of qiuqiangkong/audioset_tagging_cnn (arXiv 1912.10211)."""

from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F

from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.read_clip import read_clip
from mntp.metrics.networks.spectrograms import NUM_MELS, DecibelMel
from mntp.pretrained.checkpoints import NUMPY_VALUES, load_strictly, read_checkpoint, state_dict_of

FRONT_ENDS = {  # points of the transform, hop, lower and upper edge in Hz, by sample rate
    16_000: (512, 160, 50, 8_000),
    32_000: (1024, 320, 50, 14_000),
}
_MEL_FILTERS = "logmel_extractor.melW"
_IGNORED = ("spectrogram_extractor.", "logmel_extractor.")
_FILTER_TOLERANCE = 1e-6  # float32 against float64; the filters' peaks lie between 0.005 and 0.03


class Cnn14(AudioNetwork):
    """Twelve convolutions over log-mel decibels, for FD, KL, IS and KID.

    `features` [B, 2048] are the first linear layer's after its ReLU, `logits` [B, 527] AudioSet's classes before
    any sigmoid or softmax. The variants for 16 and 32 kHz give different numbers: the toolkit's scores are those at
    16 kHz.

    Args:
        sample_rate: 16000 (`Cnn14_16k_mAP=0.438.pth`) or 32000 (`Cnn14_mAP=0.431.pth`), in Hz.
        width: channels of the first block, doubled by each of the five others; the public checkpoints have 64.
        num_classes: K.

    Raises:
        ValueError: there is no variant for the sample rate.
    """

    outputs: ClassVar[tuple[str, ...]] = ("features", "logits")

    def __init__(self, sample_rate: int = 16_000, width: int = 64, num_classes: int = 527) -> None:
        super().__init__()
        if sample_rate not in FRONT_ENDS:
            raise ValueError(f"Cnn14 is trained for {' or '.join(map(str, FRONT_ENDS))} Hz, got {sample_rate}")
        self.sample_rate = sample_rate
        self.feature_version = f"toolkit {sample_rate}, PANNs log-mel, v1"
        self.log_mel = DecibelMel(sample_rate, *FRONT_ENDS[sample_rate])
        self.bn0 = nn.BatchNorm2d(NUM_MELS)
        self.conv_block1 = ConvBlock(1, width)
        self.conv_block2 = ConvBlock(width, 2 * width)
        self.conv_block3 = ConvBlock(2 * width, 4 * width)
        self.conv_block4 = ConvBlock(4 * width, 8 * width)
        self.conv_block5 = ConvBlock(8 * width, 16 * width)
        self.conv_block6 = ConvBlock(16 * width, 32 * width)
        self.fc1 = nn.Linear(32 * width, 32 * width)
        self.fc_audioset = nn.Linear(32 * width, num_classes)

    @classmethod
    def from_checkpoint(cls, path: Path, sample_rate: int = 16_000, width: int = 64, num_classes: int = 527) -> Self:
        """Load a public checkpoint, or a file of its layout and other sizes, frozen and on the CPU.

        The file's front end is not loaded; its mel filters must be those of `sample_rate`.

        Raises:
            ValueError: the file is missing, damaged, of another layout, or of the other sample rate.
        """
        network = cls(sample_rate, width, num_classes)
        state = state_dict_of(read_checkpoint(path, safe=NUMPY_VALUES, legacy=True), "model", path)
        network.check_filters(state, path)
        layers = {name: tensor for name, tensor in state.items() if not name.startswith(_IGNORED)}
        load_strictly(network, layers, path)
        return network.eval().requires_grad_(False)

    def check_filters(self, state: dict[str, Tensor], path: Path) -> None:
        """Check the mel filters in a checkpoint's state dict, the only sign of its sample rate.

        Raises:
            ValueError: they are missing, or of another front end than this network's.
        """
        if _MEL_FILTERS not in state:
            raise ValueError(f"{path}: the file lacks {_MEL_FILTERS}: is it the checkpoint of another model?")
        theirs, ours = state[_MEL_FILTERS], self.log_mel.filters
        if theirs.shape != ours.shape or not theirs.allclose(ours.to(theirs), rtol=0, atol=_FILTER_TOLERANCE):
            raise ValueError(
                f"{path}: {_MEL_FILTERS} {list(theirs.shape)} are not the mel filters of {self.sample_rate} Hz "
                f"{list(ours.shape)}: take the file for this rate, or name the file's"
            )

    def read(self, path: Path) -> Tensor:
        """As the toolkit at this network's rate (`read_clip`)."""
        return read_clip(path, self.sample_rate)

    def embed(self, waveform: Tensor) -> dict[str, Tensor]:
        """Tag waveform [B, samples], at least 32 frames long."""
        bands = self.bn0(self.log_mel(waveform).transpose(1, 3)).transpose(1, 3)
        for block in (self.conv_block1, self.conv_block2, self.conv_block3, self.conv_block4, self.conv_block5):
            bands = F.avg_pool2d(block(bands), 2)
        over_time = self.conv_block6(bands).mean(dim=3)
        features = self.fc1(over_time.amax(dim=2) + over_time.mean(dim=2)).relu()
        return {"features": features, "logits": self.fc_audioset(features)}


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each normalised and rectified; keeps the size of [B, C, frames, bands]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, frames, bands] -> [B, out_channels, frames, bands]."""
        x = self.bn1(self.conv1(x)).relu()
        return self.bn2(self.conv2(x)).relu()

"""The public checkpoints that scores need: names, sizes, hashes, addresses."""

from dataclasses import dataclass
from pathlib import Path

from mntp.io.integrity import verify_files
from mntp.registry import did_you_mean

FOLDER = Path("weights")


@dataclass(frozen=True)
class Weights:
    """A file of weights that others publish.

    Attributes:
        file: its name, there and here.
        url: where it is published.
        num_bytes: its size.
        sha256: of its content, in hex.
        licence: of the weights.
        purpose: what it is for.
        exact: the size is to the byte.
    """

    file: str
    url: str
    num_bytes: int
    sha256: str
    licence: str
    purpose: str
    exact: bool = True

    @property
    def size(self) -> str:
        """For readers."""
        return f"{self.num_bytes / 1e6:,.1f} MB" if self.exact else f"about {self.num_bytes / 1e6:,.0f} MB"

    @property
    def entry(self) -> dict[str, int | str | None]:
        """As `verify_files` takes it."""
        return {"bytes": self.num_bytes if self.exact else None, "sha256": self.sha256}


_PANNS = "https://zenodo.org/record/3987831/files"
_LAION = "https://huggingface.co/lukewys/laion_clap/resolve/main"
KNOWN = {
    "cnn14_16k": Weights(
        file="Cnn14_16k_mAP=0.438.pth",
        url=f"{_PANNS}/Cnn14_16k_mAP%3D0.438.pth",
        num_bytes=358_668_570,
        sha256="e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
        licence="CC BY 4.0",
        purpose="FD, KL, IS, KID (PANNs)",
    ),
    "cnn14_32k": Weights(
        file="Cnn14_mAP=0.431.pth",
        url=f"{_PANNS}/Cnn14_mAP%3D0.431.pth",
        num_bytes=327_428_481,
        sha256="0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
        licence="CC BY 4.0",
        purpose="the same at 32 kHz, not comparable",
    ),
    "vggish": Weights(
        file="vggish-10086976.pth",
        url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        num_bytes=288_600_000,
        sha256="10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
        licence="Apache-2.0",
        purpose="FAD (VGGish)",
        exact=False,
    ),
    "clap_music_speech": Weights(
        file="music_speech_audioset_epoch_15_esc_89.98.pt",
        url=f"{_LAION}/music_speech_audioset_epoch_15_esc_89.98.pt",
        num_bytes=2_352_471_003,
        sha256="51c68f12f9d7ea25fdaaccf741ec7f81e93ee594455410f3bca4f47f88d8e006",
        licence="CC0",
        purpose="CLAP score (LAION, HTSAT-base)",
    ),
    "clap_music": Weights(
        file="music_audioset_epoch_15_esc_90.14.pt",
        url=f"{_LAION}/music_audioset_epoch_15_esc_90.14.pt",
        num_bytes=2_352_000_000,
        sha256="fae3e9c087f2909c28a09dc31c8dfcdacbc42ba44c70e972b58c1bd1caf6dedd",
        licence="CC0",
        purpose="CLAP of music, not comparable",
        exact=False,
    ),
    "clap_630k": Weights(
        file="630k-audioset-best.pt",
        url=f"{_LAION}/630k-audioset-best.pt",
        num_bytes=1_863_587_645,
        sha256="8053c9775516af2f4902e1e8281e356cc1bf7a85e8b761908170767b77c3f037",
        licence="CC0",
        purpose="CLAP of Tango 2 (HTSAT-tiny), not comparable",
    ),
}


def find_weights(folder: Path, name: str, checked: bool = True) -> Path:
    """Find a file of weights, whole and unaltered.

    Args:
        folder: where files of weights lie.
        name: a key of `KNOWN`.
        checked: compare size and sha256, once per size and modification time.

    Raises:
        ValueError: an unknown name, or the file is missing (with source, size, licence and the command that fetches
            it), truncated or altered.
    """
    weights = known_weights(name)
    path = folder / weights.file
    if not path.is_file():
        raise ValueError(
            f"{path}: missing; {weights.purpose}: {weights.size}, {weights.licence}, from {weights.url}: "
            f"{fetch_command(name, folder)}"
        )
    if checked:
        verify_weights(folder, name)
    return path


def known_weights(name: str) -> Weights:
    """The entry of a checkpoint.

    Raises:
        ValueError: an unknown name.
    """
    if name not in KNOWN:
        raise ValueError(f"unknown weights {name!r}; known: {', '.join(KNOWN)}{did_you_mean(name, KNOWN)}")
    return KNOWN[name]


def fetch_command(name: str, folder: Path) -> str:
    """The command line that downloads a checkpoint."""
    where = "" if folder == FOLDER else f" --folder {folder}"
    return f"mntp weights fetch {name}{where}"


def verify_weights(folder: Path, name: str, anew: bool = False) -> None:
    """Compare a checkpoint with its size and SHA-256.

    Raises:
        ValueError: it differs.
    """
    weights = KNOWN[name]
    remedy = f"delete it, then {fetch_command(name, folder)}"
    verify_files(folder, {weights.file: weights.entry}, remedy, anew=anew, progress=True)

"""`mntp weights`: the public checkpoints that scores are computed with; nothing is downloaded without being named."""

import contextlib
import http.client
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.table import Table

from data_modules.folder import locked
from data_modules.integrity import remember_verified, verify_file, verify_files
from data_modules.progress import show_reading
from mntp.registry import did_you_mean

FOLDER = Path("weights")
_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60


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


def list_weights(folder: Path = FOLDER) -> None:
    """Show the known files of weights, and which of them are there.

    Args:
        folder: where files of weights lie.
    """
    table = Table(title=f"weights in {folder}")
    for title in ("name", "for", "size", "licence", "state"):
        table.add_column(title, justify="right" if title == "size" else "left")
    for name, weights in KNOWN.items():
        table.add_row(name, weights.purpose, weights.size, weights.licence, _state(folder, weights))
    Console().print(table)
    for name, weights in KNOWN.items():
        _say(f"{name:<18} {weights.url}")


def check(folder: Path = FOLDER) -> None:
    """Compare size and sha256 of every file of weights that is there, read anew.

    Args:
        folder: where files of weights lie.

    Raises:
        ValueError: a file is truncated or altered; every such file is named.
    """
    wrong = []
    for name, weights in KNOWN.items():
        if not (folder / weights.file).is_file():
            _say(f"{name:<18} absent")
            continue
        try:
            verify_weights(folder, name, anew=True)
        except ValueError as error:
            wrong.append(str(error))
            _say(f"{name:<18} damaged")
        else:
            _say(f"{name:<18} whole and unaltered")
    if wrong:
        raise ValueError("; ".join(wrong))


def fetch(names: list[str], folder: Path = FOLDER) -> None:
    """Download files of weights by name, or go on where a download broke off; files that are there stay.

    Args:
        names: which; `mntp weights list` shows them.
        folder: where files of weights lie.

    Raises:
        ValueError: an unknown name, no connection, or what came is truncated or altered.
    """
    asked = {name: known_weights(name) for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    for name, weights in asked.items():
        _say(f"{name}: {weights.file}, {weights.size}, {weights.licence}, from {weights.url}")
        path = folder / weights.file
        with locked(path):
            if path.is_file() and _state(folder, weights) == "present":
                verify_weights(folder, name)
                _say(f"{name}: already there")
                continue
            _download(weights, folder, name)
            _say(f"{name}: written to {path}")


def known_weights(name: str) -> Weights:
    if name not in KNOWN:
        raise ValueError(f"unknown weights {name!r}; known: {', '.join(KNOWN)}{did_you_mean(name, KNOWN)}")
    return KNOWN[name]


def fetch_command(name: str, folder: Path) -> str:
    where = "" if folder == FOLDER else f" --folder {folder}"
    return f"mntp weights fetch {name}{where}"


def _state(folder: Path, weights: Weights) -> str:
    path = folder / weights.file
    if not path.is_file():
        return "absent"
    found = path.stat().st_size
    return "present" if found == weights.num_bytes or not weights.exact else f"wrong size: {found} bytes"


def verify_weights(folder: Path, name: str, anew: bool = False) -> None:
    weights = KNOWN[name]
    remedy = f"delete it, then {fetch_command(name, folder)}"
    verify_files(folder, {weights.file: weights.entry}, remedy, anew=anew, progress=True)


def _download(weights: Weights, folder: Path, name: str) -> None:
    """Bring a file in whole under its name, or not at all; what came before a break stays beside it."""
    part = folder / f".{weights.file}.part"
    if not part.is_file() or part.stat().st_size != weights.entry["bytes"]:  # else stopped before it was checked
        _receive(weights, part, name, f"{weights.url}: {{reason}}; to go on: {fetch_command(name, folder)}")
    try:
        verify_file(part, weights.entry, f"it is deleted; try again: {fetch_command(name, folder)}", progress=True)
    except ValueError:
        part.unlink()
        raise
    part.replace(folder / weights.file)
    remember_verified(folder, [weights.file])


def _receive(weights: Weights, part: Path, name: str, again: str) -> None:
    """Write what comes behind what is already in `part`."""
    with _connect(weights, part, again) as (response, start, total):
        if weights.exact and total not in (None, weights.num_bytes):
            raise ValueError(f"{weights.url}: offers {total} bytes, expected {weights.num_bytes}: it is another file")
        left = None if total is None else total - start
        with part.open("ab" if start else "wb") as file, show_reading(response, f"fetching {name}", left) as source:
            while chunk := _read(source, again):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    came = part.stat().st_size
    if total is not None and came < total:
        raise ValueError(again.format(reason=f"ended after {came} of {total} bytes"))


@contextlib.contextmanager
def _connect(weights: Weights, part: Path, again: str) -> Iterator[tuple[BinaryIO, int, int | None]]:
    """Ask for what is missing of `part`; gives the answer, where it starts and the whole file's size, if stated."""
    start = part.stat().st_size if part.is_file() else 0
    if weights.exact and start > weights.num_bytes:
        start = 0
    ranges = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urlopen(Request(weights.url, headers={"User-Agent": "mntp", **ranges}), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file that lies there now
        raise ValueError(again.format(reason=f"answers {error.code} {error.reason}")) from error
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(again.format(reason=f"no connection ({error})")) from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server gives the whole file or nothing
        length = response.headers["Content-Length"]
        yield response, start, None if length is None else start + int(length)


def _read(source: BinaryIO, again: str) -> bytes:
    try:
        return source.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(again.format(reason=f"broke off ({error})")) from error


def _say(line: str) -> None:
    Console().print(line, markup=False, highlight=False, soft_wrap=True)

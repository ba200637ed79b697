"""Embeddings of audio files, each computed once per network and kept by the file's content.

The cache has a folder for each network (its fingerprint: weights and code) with a small file for each audio file (its
SHA-256): names, folders and dates don't matter, and processes may share it.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import soundfile
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mntp.audio.files import AudioError
from mntp.io.files import atomic_write, file_sha256
from mntp.io.progress import show_progress
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.score_sets import Embeddings

BATCH_SIZE = 32
_NUM_SHOWN = 20


class UnusableAudioError(ValueError):
    """Some files can't be scored; the message names them all, or the first twenty."""

    def __init__(self, problems: Sequence[AudioError], num_files: int) -> None:
        shown = "; ".join(str(problem) for problem in problems[:_NUM_SHOWN])
        more = f"; and {len(problems) - _NUM_SHOWN} more" if len(problems) > _NUM_SHOWN else ""
        super().__init__(f"{len(problems)} of {num_files} files can't be scored: {shown}{more}")


def digest_files(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, 64 hex digits.

    Raises:
        UnusableAudioError: some can't be read.
    """
    digests, problems = [], []
    for path in paths:
        try:
            digests.append(file_sha256(path))
        except OSError as error:
            problems.append(AudioError(f"{path}: not readable ({error.strerror})"))
    if problems:
        raise UnusableAudioError(problems, len(paths))
    return digests


@torch.no_grad()
def embed_files(
    network: AudioNetwork,
    paths: Sequence[Path],
    digests: Sequence[str],
    cache: Path,
    batch_size: int = BATCH_SIZE,
    label: str = "clips",
) -> Embeddings:
    """Compute the embeddings of files, or read them from the cache.

    Files of equal length and rate are embedded together, always in the same batches, so that a scoring that was
    interrupted ends with the same last bits. Padding to a common length would change the embeddings.

    Args:
        network: in `eval` mode, on any device.
        paths: the files.
        digests: their SHA-256.
        cache: folder of embeddings, made if it is missing.
        batch_size: files embedded at once.
        label: what the progress bar calls them.

    Returns:
        For each output of the network a tensor for each file, on the CPU, in the order of `paths`.

    Raises:
        UnusableAudioError: some files are unreadable, empty or not finite; the embeddings of the others are kept.
        OSError: the cache can't be written.
    """
    folder = cache / network.fingerprint()
    batches = _batches(paths, batch_size)
    embedded: dict[int, dict[str, Tensor]] = {}
    problems: list[AudioError] = []
    missing = []
    for batch in batches:
        cached = {row: _read(folder, digests[row], network.outputs) for row in batch}
        found = {row: outputs for row, outputs in cached.items() if outputs is not None}
        embedded |= found
        if len(found) < len(batch):
            missing.append(batch)
    for batch in show_progress(missing, f"embedding {label}", len(missing)) if missing else ():
        waveforms = {}
        for row in batch:
            try:
                waveforms[row] = network.read(paths[row])
            except AudioError as problem:
                problems.append(problem)
        if waveforms:
            fresh = _embed_batch(network, waveforms)
            for row, outputs in fresh.items():
                embedded[row] = _write(folder, digests[row], outputs)
    if problems:
        raise UnusableAudioError(problems, len(paths))
    return {name: [embedded[row][name] for row in range(len(paths))] for name in network.outputs}


def _batches(paths: Sequence[Path], batch_size: int) -> list[list[int]]:
    """Rows of files that are equally long; files whose header can't be read stand alone."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    alone = []
    for row, path in enumerate(paths):
        try:
            info = soundfile.info(path)
        except (soundfile.LibsndfileError, TypeError, OSError):
            alone.append([row])  # the network says what is wrong with it
        else:
            groups[info.frames, info.samplerate].append(row)
    return alone + [
        rows[start : start + batch_size] for rows in groups.values() for start in range(0, len(rows), batch_size)
    ]


def _embed_batch(network: AudioNetwork, waveforms: dict[int, Tensor]) -> dict[int, dict[str, Tensor]]:
    device = next(network.parameters()).device
    outputs = network(torch.stack(list(waveforms.values())).to(device))
    assert set(outputs) == set(network.outputs)
    return {
        row: {name: values[place].cpu().clone() for name, values in outputs.items()}
        for place, row in enumerate(waveforms)
    }


def _place(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / f"{digest}.safetensors"


def _read(folder: Path, digest: str, outputs: Sequence[str]) -> dict[str, Tensor] | None:
    """Cached outputs; None where there are none, or the file is damaged."""
    try:
        found = load_file(_place(folder, digest))
    except (OSError, SafetensorError):
        return None
    return found if set(found) == set(outputs) else None


def _write(folder: Path, digest: str, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    path = _place(folder, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        file.write(save({name: tensor.contiguous() for name, tensor in outputs.items()}))
    return outputs

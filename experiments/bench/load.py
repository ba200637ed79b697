"""`mntp bench load`: how fast clips are read from a store, beside how fast training needs them."""

import os
import platform
import tempfile
import time
from pathlib import Path

import torch

from data_modules.latents import LatentDataModule
from data_modules.store.clips import ClipRow
from data_modules.store.writer import CLIPS_PER_SHARD, ShardWriter, finish_store, shard_name
from experiments.bench.common import print_line, seconds_of
from mntp.io.progress import show_progress
from mntp.tokenizers.layout import mel_layout


def load(
    clips: int = 4096,
    num_tokens: int = 256,
    token_dim: int = 128,
    words: int = 24,
    word_dim: int = 1024,
    pooled_dim: int = 512,
    batch_size: int = 64,
    workers: int = 2,
    folder: Path | None = None,
    needed: float | None = None,
    config: Path | None = None,
) -> None:
    """Measure how many clips a second a store gives in random order, cold and hot, and print one line of JSON.

    A store of random numbers is written to a temporary folder and removed again. Cold means that the system was asked
    to forget the files first; what the disk itself remembers is out of reach.

    Args:
        clips: in the store.
        num_tokens: of a clip.
        token_dim: values of a token.
        words: text states of a clip.
        word_dim: values of a text state.
        pooled_dim: values of the caption's pooled vector.
        batch_size: clips of a batch.
        workers: loading processes of the second measurement; the first has none.
        folder: where to write the store; by default the system's folder for temporary files.
        needed: clips a second that training takes.
        config: measure what training takes, by this config's model, on random tokens of its own size.

    Raises:
        ValueError: a number is out of range, both `needed` and `config` are given, or the config is wrong.
        OSError: the disk is full.
    """
    if min(clips, num_tokens, token_dim, words, word_dim, pooled_dim, batch_size) < 1 or clips < batch_size:
        raise ValueError(f"got clips={clips}, batch_size={batch_size}; expected numbers above 0 and a whole batch")
    if num_tokens % mel_layout(token_dim).tokens_per_frame:
        raise ValueError(f"num_tokens is {num_tokens}; expected a multiple of {mel_layout(token_dim).tokens_per_frame}")
    if needed is not None and config:
        raise ValueError("got both needed and config; give one of them")
    with tempfile.TemporaryDirectory(prefix="mntp-bench-", dir=folder) as temporary:
        store = Path(temporary) / "store"
        write_store(store, clips, (num_tokens, token_dim), {"pooled": (1, pooled_dim), "words": (words, word_dim)})
        rates = {
            f"workers_{number}": {state: _rate(store, batch_size, number, state) for state in ("cold", "hot")}
            for number in (0, workers)
        }
    if config:
        needed = consumption(config, batch_size)
    headroom = needed and {name: round(rate["hot"] / needed, 2) for name, rate in rates.items()}
    print_line(
        "load",
        clips=clips,
        clip={"tokens": [num_tokens, token_dim], "words": [words, word_dim], "pooled": [1, pooled_dim]},
        batch_size=batch_size,
        clips_per_second=rates,
        needed_per_second=needed,
        headroom=headroom,
        cores=len(os.sched_getaffinity(0)),
        machine=platform.machine(),
    )


def write_store(out: Path, clips: int, tokens: tuple[int, int], streams: dict[str, tuple[int, int]]) -> None:
    """Write a store of random numbers, all of it for training.

    Args:
        out: the folder, absent.
        clips: how many.
        tokens: shape of a clip's tokens.
        streams: shape of its text states.
    """
    out.mkdir()
    generator = torch.Generator().manual_seed(0)
    layout = mel_layout(tokens[1])
    seconds = tokens[0] / layout.tokens_per_frame * layout.frame_seconds
    rows, entries = [], []
    starts = range(0, clips, CLIPS_PER_SHARD)
    for number, first in enumerate(show_progress(starts, "writing shards of random clips", len(starts))):
        writer = ShardWriter(out / shard_name(number), out / "audio", layout)
        for place in range(first, min(first + CLIPS_PER_SHARD, clips)):
            row = ClipRow(f"clip{place}", f"clip{place}.wav", "random numbers", "train", seconds, 0.0)
            text = {name: torch.randn(shape, generator=generator) for name, shape in streams.items()}
            writer.add(row, torch.randn(tokens, generator=generator), text, torch.zeros(1))
        entries.append(writer.close())
        rows += writer.clips
    tokenizer = {"class": "none", "settings": {}, "fingerprint": "none", "state": {"none": torch.zeros(1)}}
    samples = round(seconds * layout.sample_rate)
    finish_store(out, rows, entries, tokenizer, {"class": "none", "fingerprint": "none"}, samples, layout)


def consumption(config: Path, batch_size: int) -> float:
    """Clips a second that a training step of a config's model takes, on the GPU if there is one.

    Args:
        config: the file.
        batch_size: clips of a step.
    """
    from experiments.bench.train import TrainingStep  # Lightning's command line takes seconds to import
    from experiments.config.resolve import load_config, resolve

    step = TrainingStep(resolve(load_config(config)), batch_size)
    seconds_of(step.device, step, 0)  # the first one allocates
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < 2:
        taken.append(seconds_of(step.device, step, len(taken)))
    return batch_size * len(taken) / sum(taken)


def _rate(store: Path, batch_size: int, workers: int, state: str) -> float:
    """Clips a second over an epoch, from the first batch on."""
    if state == "cold":
        _forget(store)
    else:
        for path in store.glob("*.safetensors"):
            path.read_bytes()
    batches = iter(LatentDataModule(store, batch_size=batch_size, num_workers=workers).train_dataloader())
    next(batches)  # starting the workers takes as long as it takes
    began = time.perf_counter()
    count = sum(len(batch.tokens) for batch in batches)
    return round(count / max(time.perf_counter() - began, 1e-9), 1)


def _forget(store: Path) -> None:
    """Ask the system to drop the files from memory; it needn't."""
    for path in store.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

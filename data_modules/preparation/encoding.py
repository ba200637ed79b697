"""The third pass of a preparation: encode all clips, a shard of the store at a time."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data_modules.corpora.base import Window
from data_modules.preparation.findings import Survey
from data_modules.preparation.job import Job
from data_modules.preparation.machine import memory_errors, torch_device
from data_modules.preparation.work_queue import Piece
from data_modules.store.writer import CLIPS_PER_SHARD, ShardWriter
from mntp.io.progress import progress

BATCH_SIZE = 32


def encode_clips(job: Job, survey: Survey, worker: tuple[int, int]) -> None:
    """Encode all clips together with other processes.

    Args:
        job: the preparation, its tokenizer fitted.
        survey: of its sounds.
        worker: number of this process, and how many there are.
    """
    shards, pieces = survey.shards(CLIPS_PER_SHARD), shard_pieces(job, survey)
    device = torch_device(job.device, worker[0])
    job.tokenizer.to(device)
    with progress("encoding clips", survey.num_windows("train", "val", "test"), worker[0] == 0) as advance:

        @torch.inference_mode()
        def encode(place: int) -> dict[str, Any]:
            piece = pieces[place]
            writer = ShardWriter(shard_file(piece), audio_folder(piece), job.tokenizer.layout)
            windows = survey.read(shards[place], job.size)
            with memory_errors(f"shard {place}"):
                while batch := list(itertools.islice(windows, BATCH_SIZE)):
                    _encode_batch(job, batch, device, writer)
                    advance(len(batch))
            return {"entry": writer.close(), "clips": [dataclasses.astuple(clip) for clip in writer.clips]}

        job.share(pieces, encode, worker, advance)
    job.tokenizer.to("cpu")


def shard_pieces(job: Job, survey: Survey) -> list[Piece]:
    """The pieces of work of encoding, one a shard."""
    tokenizer, text = job.tokenizer.fingerprint(), job.text_encoder.fingerprint()
    common = [tokenizer, text, job.device, job.threads]
    pieces = []
    for number, parts in enumerate(survey.shards(CLIPS_PER_SHARD)):
        num_clips = sum(part.last - part.first for part in parts)
        pieces.append(job.piece("shard", number, num_clips, [common, job.content(survey, parts)]))
    return pieces


def shard_file(piece: Piece) -> Path:
    """The shard that a piece of work writes."""
    return piece.stem.with_suffix(".safetensors")


def audio_folder(piece: Piece) -> Path:
    """Where a piece of work writes its clips' WAV files."""
    return piece.stem.with_suffix(".audio")


def _encode_batch(job: Job, batch: Sequence[Window], device: torch.device, writer: ShardWriter) -> None:
    waveforms = torch.stack([window.waveform for window in batch])
    tokens, ids = job.tokenizer.encode_ids(waveforms.to(device))
    expected = (len(batch), job.tokenizer.num_tokens(job.size.samples), job.tokenizer.layout.dim)
    if tokens.shape != expected:
        name = type(job.tokenizer).__name__
        raise ValueError(f"{name} gives tokens of shape {tuple(tokens.shape)}; its layout asks for {expected}")
    text = job.text_encoder.encode([window.clip.caption for window in batch])
    for number, window in enumerate(batch):
        states = {name: stream[number] for name, stream in text.items()}
        writer.add(window.clip, tokens[number], states, window.waveform, None if ids is None else ids[number])

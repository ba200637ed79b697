"""The end of a preparation: put the finished pieces of work together into a store."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_modules.corpora.base import Window
from data_modules.preparation.encoding import audio_folder, shard_file, shard_pieces
from data_modules.preparation.findings import Part, Survey
from data_modules.preparation.fitting import LearnsFromSound, load_fitted
from data_modules.preparation.job import Job
from data_modules.preparation.work_queue import AGAIN, Piece
from data_modules.store.clips import ClipRow
from data_modules.store.writer import finish_store, shard_name
from mntp.io.files import atomic_folder
from mntp.io.integrity import verify_file
from mntp.io.progress import show_progress
from mntp.text import text_spec
from mntp.tokenizers import tokenizer_spec

# Clips of the validation split on which the tokenizer's reconstruction error is measured.
NUM_RECONSTRUCTED = 32


def assemble_store(job: Job, survey: Survey) -> None:
    """Put the store together, and remove the pieces. To be called by the holder of the store's lock.

    Raises:
        ValueError: a piece was altered on disk.
    """
    tokenizer = load_fitted(job, survey)
    pieces = shard_pieces(job, survey)
    clips: list[ClipRow] = []
    entries: list[dict[str, Any]] = []
    with atomic_folder(job.out) as folder:
        for number, piece in enumerate(show_progress(pieces, "putting shards together", len(pieces))):
            result = piece.result()
            _take_shard(piece, result["entry"], number, folder)
            clips += [ClipRow(*row) for row in result["clips"]]
            entries.append(result["entry"])
        facts = {
            "settings": job.settings,
            "coverage": survey.coverage(),
            "reconstruction": _reconstruction_error(job, survey),
        }
        if reading := _reading(job, survey):
            facts["reading"] = reading
        spec, text = tokenizer_spec(tokenizer), text_spec(job.text_encoder)
        finish_store(folder, clips, entries, spec, text, job.size.samples, tokenizer.layout, **facts)
    shutil.rmtree(job.folder, ignore_errors=True)


def _take_shard(piece: Piece, entry: dict[str, Any], number: int, folder: Path) -> None:
    """Put the shard and the WAV files of a piece into the store's folder."""
    shard = shard_file(piece)
    try:
        verify_file(shard, entry, AGAIN)
    except ValueError:
        shard.unlink(missing_ok=True)
        piece.path.unlink()
        raise
    _link(shard, folder / shard_name(number))
    for sound in sorted(audio_folder(piece).rglob("*.wav")):
        target = folder / "audio" / sound.relative_to(audio_folder(piece))
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(sound, target)


def _reconstruction_error(job: Job, survey: Survey) -> dict[str, float | int]:
    """Root mean square of the tokenizer's errors on some validation clips, over frames with sound: padding is easy."""
    tokenizer, layout = job.tokenizer, job.tokenizer.layout
    if not isinstance(tokenizer, LearnsFromSound):
        return {"clips": 0}
    windows = list(_validation_windows(job, survey))
    squares: dict[str, float] = {}
    total = 0
    for window in show_progress(windows, "reconstructing validation sounds", len(windows)):
        num_frames = layout.num_frames(layout.num_valid_tokens(window.clip.seconds))
        sound = window.waveform[None, : num_frames * layout.samples_per_frame]
        total += num_frames
        for name, error in tokenizer.reconstruction_error(sound).items():
            squares[name] = squares.get(name, 0.0) + num_frames * error**2
    errors = {name: round(math.sqrt(square / total), 4) for name, square in squares.items()}
    return {"clips": len(windows), **errors}


def _validation_windows(job: Job, survey: Survey) -> Iterator[Window]:
    """Some windows of the validation split, spread evenly."""
    stride = max(1, math.ceil(survey.num_windows("val") / NUM_RECONSTRUCTED))
    number = 0
    for place in survey.usable("val"):
        end = number + survey.findings[place].windows
        chosen = [index - number for index in range(-(-number // stride) * stride, end, stride)]
        yield from survey.read((Part(place, window, window + 1) for window in chosen), job.size)
        number = end


def _reading(job: Job, survey: Survey) -> dict[str, Any]:
    """How training draws clips, with the number of clips of each corpus."""
    reading = job.source.reading()
    if reading:
        count = dict.fromkeys((entry["name"] for entry in reading["corpora"]), 0)
        for row, finding in zip(job.source.rows, survey.findings, strict=True):
            count[row.corpus] += finding.windows
        reading["corpora"] = [{**entry, "clips": count[entry["name"]]} for entry in reading["corpora"]]
    return reading


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)

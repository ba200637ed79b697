"""Preparing a store: read every sound, fit the tokenizer on the training split, encode all clips, put them together.

Each step is cut into pieces (`work`) in the hidden folder `.<name>.work` beside the store, which is removed when the
store is finished. Killed at any moment and started again, preparation goes on; started several times at once, the
processes share the work; the store is the same byte for byte.
"""

import dataclasses
import itertools
import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_modules.corpora.base import Finding, Source, Window
from data_modules.preparation.findings import Part, Survey
from data_modules.preparation.machine import memory_errors, torch_device, use_threads, worker_number
from data_modules.preparation.settings import is_prepared, stamp, store_settings
from data_modules.preparation.work_queue import AGAIN, Piece, helpers, name_piece, share
from data_modules.store.store import INDEX, ClipRow, Store
from data_modules.store.writer import CLIPS_PER_SHARD, ShardWriter, finish_store, shard_name
from mntp.audio.log_mel import SAMPLE_RATE
from mntp.io.files import disk_errors, replaced_folder
from mntp.io.integrity import verify_file
from mntp.io.locks import locked
from mntp.io.progress import progress, show_progress
from mntp.text import text_spec
from mntp.text.base import TextEncoder
from mntp.tokenizers import tokenizer_spec
from mntp.tokenizers.base import Tokenizer

BATCH = 32
ROWS_PER_PIECE = 256
# Training sounds, spread evenly, from which a tokenizer learns at most.
MAX_FITTED = 4096
# Clips of the validation split on which the tokenizer's reconstruction error is measured.
NUM_RECONSTRUCTED = 32


@runtime_checkable
class LearnsFromSound(Protocol):
    """A tokenizer that is fitted on waveforms [samples] and can say what is lost by it."""

    def fit(self, waveforms: Iterable[Tensor]) -> None:
        """Fit in one pass."""

    def reconstruction_error(self, waveform: Tensor) -> dict[str, float]:
        """Root-mean-square errors by name, for waveform [B, samples]."""


def prepare_store(
    source: Source,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    out: Path,
    seconds: float = 2.56,
    allow_missing: bool = False,
    overwrite: bool = False,
    processes: int = 1,
    device: str = "cpu",
    threads: int = 1,
) -> Store:
    """Prepare a store, or open it if it was prepared with the same settings.

    Nothing appears at `out` before the store is finished; processes that prepare the same store share the work.

    Args:
        source: of the clips.
        tokenizer: fitted here on the training split, if it learns from sound.
        text_encoder: of the captions.
        out: the store's folder, absent or empty or a store.
        seconds: length of a window, a multiple of 0.16.
        allow_missing: leave out sounds that can't be used, and record them, instead of stopping.
        overwrite: replace a store of other settings.
        processes: how many work here, at most one for 256 rows; with more than one, a script that calls this must
            be importable.
        device: of the tokenizer, `cpu` or `cuda`; process i takes the i-th GPU.
        threads: of each process, on any machine; another number rounds sums differently.

    Raises:
        UnusableClipsError: some sounds can't be used; lists all of them.
        ValueError: `seconds` fits no whole tokens; `out` is something else, or a store of other settings; there
            is no sound to train on; a piece of work was altered on disk.
        OSError: the disk is full or can't be written, or memory ran out; an older store and what was done are kept.
    """
    job = Preparation(
        source, tokenizer, text_encoder, out, seconds, allow_missing, overwrite, processes, device, threads
    )
    if not job.is_done():
        helping = range(1, min(processes, math.ceil(len(source.rows) / ROWS_PER_PIECE)))
        with disk_errors(out):
            survey = job.work(0, [(job, number) for number in helping])
        with locked(out):
            if survey is not None and not job.is_done():
                with disk_errors(out), use_threads(threads):
                    job.assemble(survey)
    return Store(out)


class Preparation:
    """The preparation of one store; arguments as of `prepare_store`. Can be sent to another process."""

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        text_encoder: TextEncoder,
        out: Path,
        seconds: float,
        allow_missing: bool,
        overwrite: bool,
        processes: int,
        device: str,
        threads: int,
    ) -> None:
        if processes < 1:
            raise ValueError(f"got {processes} processes; expected at least 1")
        self.source = source
        self.tokenizer = tokenizer.to("cpu")  # to be sent to others; each process moves it to its own device
        self.text_encoder = text_encoder
        self.out = out
        self.folder = out.with_name(f".{out.name}.work")
        self.samples = round(seconds * SAMPLE_RATE)
        tokenizer.num_tokens(self.samples)
        self.allow_missing = allow_missing
        self.overwrite = overwrite
        self.processes = processes
        self.device = device
        self.threads = threads
        self.settings = store_settings(source, tokenizer, text_encoder, seconds, allow_missing)
        self._replaced = stamp(out / INDEX)

    def is_done(self) -> bool:
        """Whether the store that is asked for is there; refuse anything else that is in the way."""
        fresh = self._replaced != stamp(self.out / INDEX)  # another process has finished it in the meantime
        return is_prepared(self.out, self.settings, self.overwrite and not fresh)

    def work(self, number: int, others: list[tuple["Preparation", int]]) -> Survey | None:
        """Do this process' share of all pieces, and return when all of them are done; None if the store is finished.

        Args:
            number: of this process among those of this preparation.
            others: what further processes are to be started with.
        """
        with locked(self.out, shared=True), helpers(_help, others), use_threads(self.threads):
            if self.is_done():
                return None
            self.folder.mkdir(exist_ok=True)
            worker = worker_number(number, self.processes)
            survey = self._survey(worker)
            survey.check(self.allow_missing, isinstance(self.tokenizer, LearnsFromSound))
            self._fit(survey)
            self._encode(survey, worker)
            return survey

    def assemble(self, survey: Survey) -> None:
        """Put the store together from finished pieces, and remove them."""
        tokenizer = self._load_tokenizer(survey)
        pieces = self._encodings(survey)
        clips: list[ClipRow] = []
        entries: list[dict[str, Any]] = []
        with replaced_folder(self.out) as folder:
            for number, piece in enumerate(show_progress(pieces, "putting shards together", len(pieces))):
                result = piece.result()
                shard = _shard_file(piece)
                try:
                    verify_file(shard, result["entry"], AGAIN)
                except ValueError:
                    shard.unlink(missing_ok=True)
                    piece.path.unlink()
                    raise
                _link(shard, folder / shard_name(number))
                for sound in sorted(_audio_folder(piece).rglob("*.wav")):
                    target = folder / "audio" / sound.relative_to(_audio_folder(piece))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(sound, target)
                clips += [ClipRow(*row) for row in result["clips"]]
                entries.append(result["entry"])
            facts = {"settings": self.settings, "coverage": survey.coverage()}
            facts["reconstruction"] = self._reconstruction_error(survey, tokenizer)
            if reading := self._reading(survey):
                facts["reading"] = reading
            spec = tokenizer_spec(tokenizer)
            finish_store(folder, clips, entries, spec, text_spec(self.text_encoder), self.samples, **facts)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- reading the sounds ---------------------------------------------------------------------------------------

    def _readings(self) -> list[Piece]:
        """Pieces of the first pass over the sounds."""
        pieces = []
        for number, first in enumerate(range(0, len(self.source.rows), ROWS_PER_PIECE)):
            rows = self.source.rows[first : first + ROWS_PER_PIECE]
            decides = [self.samples, [[dataclasses.astuple(row), self.source.stamp(row)] for row in rows]]
            pieces.append(name_piece(self.folder, "sounds", number, len(rows), decides))
        return pieces

    def _survey(self, worker: tuple[int, int]) -> Survey:
        pieces = self._readings()
        with progress("reading sounds", len(self.source.rows), worker[0] == 0) as advance:

            def read(place: int) -> list[dict[str, Any]]:
                first = place * ROWS_PER_PIECE
                findings = []
                for row in self.source.rows[first : first + ROWS_PER_PIECE]:
                    with memory_errors(row.file):
                        findings.append(dataclasses.asdict(self.source.inspect(row, self.samples)))
                    advance(1)
                return findings

            share(pieces, read, worker, advance)
        return Survey(self.source, _findings(pieces))

    # --- what the tokenizer learns --------------------------------------------------------------------------------

    def _fitting(self, survey: Survey) -> tuple[list[Part], Piece]:
        """The training sounds to learn from, and the piece of learning from them."""
        usable = survey.usable("train")
        stride = math.ceil(len(usable) / MAX_FITTED)
        parts = [Part(place, 0, survey.findings[place].windows) for place in usable[::stride]]
        settings = [type(self.tokenizer).__name__, self.tokenizer.identity(), self.threads]
        decides = [self.samples, settings, self._content(survey, parts)]
        return parts, name_piece(self.folder, "tokenizer", 0, len(parts), decides)

    def _fit(self, survey: Survey) -> None:
        """Fit the tokenizer, or take what another process has fitted."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer, LearnsFromSound):
            parts, piece = self._fitting(survey)

            def fit(_: int) -> str:
                rows = show_progress(parts, "learning the tokenizer", len(parts))
                with memory_errors("learning the tokenizer"):
                    tokenizer.fit(window.waveform for part in rows for window in survey.read([part], self.samples))
                partial = piece.stem.with_suffix(".partial")
                save_file(tokenizer.state_dict(), partial)
                partial.replace(piece.stem.with_suffix(".safetensors"))
                return tokenizer.fingerprint()

            share([piece], fit)
        self._load_tokenizer(survey)

    def _load_tokenizer(self, survey: Survey) -> Tokenizer:
        """The tokenizer with what was learned, in evaluation mode."""
        if isinstance(self.tokenizer, LearnsFromSound):
            piece = self._fitting(survey)[1]
            path = piece.stem.with_suffix(".safetensors")
            try:
                self.tokenizer.load_state_dict(load_file(path))
                altered = self.tokenizer.fingerprint() != piece.result()
            except (SafetensorError, RuntimeError, OSError):
                altered = True
            if altered:
                piece.path.unlink(missing_ok=True)
                raise ValueError(f"{path}: what the tokenizer learned was altered on disk; {AGAIN}")
        return self.tokenizer.eval()

    # --- encoding -------------------------------------------------------------------------------------------------

    def _encodings(self, survey: Survey) -> list[Piece]:
        """Pieces of encoding, one a shard."""
        tokenizer, text = self.tokenizer.fingerprint(), self.text_encoder.fingerprint()
        common = [self.samples, tokenizer, text, self.device, self.threads]
        return [
            name_piece(self.folder, "shard", number, _num_clips(parts), [common, self._content(survey, parts)])
            for number, parts in enumerate(survey.shards(CLIPS_PER_SHARD))
        ]

    def _encode(self, survey: Survey, worker: tuple[int, int]) -> None:
        shards, pieces = survey.shards(CLIPS_PER_SHARD), self._encodings(survey)
        device = torch_device(self.device, worker[0])
        self.tokenizer.to(device)
        with progress("encoding clips", survey.num_windows("train", "val", "test"), worker[0] == 0) as advance:

            @torch.inference_mode()
            def encode(place: int) -> dict[str, Any]:
                writer = ShardWriter(_shard_file(pieces[place]), _audio_folder(pieces[place]))
                windows = survey.read(shards[place], self.samples)
                with memory_errors(f"shard {place}"):
                    while batch := list(itertools.islice(windows, BATCH)):
                        self._encode_batch(batch, device, writer)
                        advance(len(batch))
                return {"entry": writer.close(), "clips": [dataclasses.astuple(clip) for clip in writer.clips]}

            share(pieces, encode, worker, advance)
        self.tokenizer.to("cpu")

    def _encode_batch(self, batch: list[Window], device: torch.device, writer: ShardWriter) -> None:
        waveforms = torch.stack([window.waveform for window in batch])
        tokens = self.tokenizer.encode(waveforms.to(device)).cpu()
        text = self.text_encoder.encode([window.clip.caption for window in batch])
        for number, window in enumerate(batch):
            states = {name: stream[number] for name, stream in text.items()}
            writer.add(window.clip, tokens[number], states, window.waveform)

    def _content(self, survey: Survey, parts: list[Part]) -> list[Any]:
        """What decides the windows of some parts: the rows, and their sounds or what they are made by."""
        content = []
        for part in parts:
            row, finding = self.source.rows[part.place], survey.findings[part.place]
            stamp = finding.content or self.source.stamp(row)
            content.append([dataclasses.astuple(row), part.first, part.last, stamp])
        return content

    # --- facts for the index --------------------------------------------------------------------------------------

    def _reconstruction_error(self, survey: Survey, tokenizer: Tokenizer) -> dict[str, float | int]:
        """Root mean square of the errors over the slices with sound of some val clips: padding is easy, not counted."""
        if not isinstance(tokenizer, LearnsFromSound):
            return {"clips": 0}
        windows = list(self._heard(survey))
        squares: dict[str, float] = {}
        num_slices = 0
        for window in show_progress(windows, "reconstructing validation sounds", len(windows)):
            slices = math.ceil(round(window.clip.seconds * SAMPLE_RATE) / tokenizer.samples_per_slice)
            sound = window.waveform[None, : slices * tokenizer.samples_per_slice]
            num_slices += slices
            for name, error in tokenizer.reconstruction_error(sound).items():
                squares[name] = squares.get(name, 0.0) + slices * error**2
        errors = {name: round(math.sqrt(square / num_slices), 4) for name, square in squares.items()}
        return {"clips": len(windows), **errors}

    def _heard(self, survey: Survey) -> Iterator[Window]:
        """Some windows of the validation split, spread evenly."""
        stride = max(1, math.ceil(survey.num_windows("val") / NUM_RECONSTRUCTED))
        number = 0
        for place in survey.usable("val"):
            end = number + survey.findings[place].windows
            chosen = [index - number for index in range(-(-number // stride) * stride, end, stride)]
            yield from survey.read((Part(place, window, window + 1) for window in chosen), self.samples)
            number = end

    def _reading(self, survey: Survey) -> dict[str, Any]:
        """How training draws from the clips, with the number of clips of each corpus."""
        reading = self.source.reading()
        if reading:
            count = dict.fromkeys((entry["name"] for entry in reading["corpora"]), 0)
            for row, finding in zip(self.source.rows, survey.findings, strict=True):
                count[row.corpus] += finding.windows
            reading["corpora"] = [{**entry, "clips": count[entry["name"]]} for entry in reading["corpora"]]
        return reading


def _help(job: Preparation, number: int) -> None:
    """What a further process does."""
    job.work(number, [])


def _findings(pieces: list[Piece]) -> list[Finding]:
    return [Finding(**finding) for piece in pieces for finding in piece.result()]


def _num_clips(parts: list[Part]) -> int:
    return sum(part.last - part.first for part in parts)


def _shard_file(piece: Piece) -> Path:
    return piece.stem.with_suffix(".safetensors")


def _audio_folder(piece: Piece) -> Path:
    return piece.stem.with_suffix(".audio")


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no such thing."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)

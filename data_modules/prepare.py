"""Preparing a store: read every sound, fit the tokenizer on the training split, encode and write all clips."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from data_modules.folder import atomic_folder, locked
from data_modules.progress import show_progress
from data_modules.sources import Source, UnusableClip, Window
from data_modules.store import Store, is_store
from data_modules.store_writer import StoreWriter
from mntp.audio import SAMPLE_RATE
from mntp.text import text_spec
from mntp.text.base import TextEncoder
from mntp.tokenizers import tokenizer_spec
from mntp.tokenizers.base import Tokenizer

BATCH = 32
# Clips of the validation split on which the tokenizer's reconstruction error is measured.
NUM_RECONSTRUCTED = 32


@runtime_checkable
class LearnsFromSound(Protocol):
    """A tokenizer that is fitted on waveforms [samples] and can say what is lost by it."""

    def fit(self, waveforms: Iterable[Tensor]) -> None:
        """Fit in one pass."""

    def reconstruction_error(self, waveform: Tensor) -> dict[str, float]:
        """Root-mean-square errors by name, for waveform [B, samples]."""


class UnusableClipsError(ValueError):
    """Some rows of a source can't be used.

    Attributes:
        problems: one a row, in the source's order.
    """

    def __init__(self, problems: list[UnusableClip], num_rows: int) -> None:
        reasons = Counter(problem.reason for problem in problems)
        self.problems = problems
        super().__init__(
            f"{len(problems)} of {num_rows} sounds can't be used "
            f"({', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))}; "
            f"first: {problems[0]}): correct the table or the files, or go on without them with --allow_missing"
        )


def prepare_store(
    source: Source,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    out: Path,
    seconds: float = 2.56,
    allow_missing: bool = False,
    overwrite: bool = False,
) -> Store:
    """Prepare a store, or open it if it was prepared with the same settings.

    Nothing appears at `out` before the store is finished; two processes that prepare the same store take turns.

    Args:
        source: of the clips.
        tokenizer: fitted here on the training split, if it learns from sound.
        text_encoder: of the captions.
        out: the store's folder, absent or empty or a store.
        seconds: length of a window, a multiple of 0.16.
        allow_missing: leave out sounds that can't be used, and record them, instead of stopping.
        overwrite: replace a store of other settings.

    Raises:
        UnusableClipsError: some sounds can't be used; lists all of them.
        ValueError: `seconds` fits no whole tokens; `out` is something else, or a store of other settings; there
            is no sound to train on.
        OSError: the disk is full or can't be written; an older store is kept.
    """
    samples = round(seconds * SAMPLE_RATE)
    tokenizer.num_tokens(samples)
    settings = _settings(source, tokenizer, text_encoder, seconds, allow_missing)
    with locked(out):
        if _is_prepared(out, settings, overwrite):
            return Store(out)
        survey = Survey(source, samples, allow_missing)
        if isinstance(tokenizer, LearnsFromSound):
            tokenizer.fit(survey.training_sounds())
        else:
            survey.run()
        tokenizer.eval()
        with atomic_folder(out) as folder:
            writer = StoreWriter(folder)
            reconstruction = _encode(survey, tokenizer, text_encoder, writer)
            writer.close(
                tokenizer_spec(tokenizer),
                text_spec(text_encoder),
                samples,
                settings=settings,
                coverage=survey.coverage(),
                reconstruction=reconstruction,
            )
    return Store(out)


@dataclass
class Survey:
    """The first pass over a source: which rows can be used, and how many windows they give.

    Attributes:
        source: of the sounds.
        samples: length of a window.
        allow_missing: whether rows may be unusable.
        problems: the rows that can't be used.
        dropped: windows left out of sounds that can be used, by reason.
        num_windows: by split.
    """

    source: Source
    samples: int
    allow_missing: bool
    problems: list[UnusableClip] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    num_windows: Counter[str] = field(default_factory=Counter)

    def training_sounds(self) -> Iterator[Tensor]:
        """Yield the training windows [samples], while reading all rows.

        Raises:
            UnusableClipsError: at the end, some rows can't be used and `allow_missing` is False.
            ValueError: at the end, there was no training window.
        """
        rows = self.source.rows
        for row in show_progress(rows, "reading sounds", len(rows)):
            try:
                windows = self.source.read(row, self.samples)
            except UnusableClip as problem:
                self.problems.append(problem)
                continue
            self.dropped += windows.dropped
            self.num_windows[row.split] += len(windows.kept)
            if row.split == "train":
                yield from (window.waveform for window in windows.kept)
        if self.problems and not self.allow_missing:
            raise UnusableClipsError(self.problems, len(rows))
        if not self.num_windows["train"]:
            raise ValueError("there is no usable sound in the split train; expected at least one to learn from")

    def run(self) -> None:
        """Read all rows for the counts alone."""
        for _ in self.training_sounds():
            pass

    def windows(self) -> Iterator[Window]:
        """Yield all windows again; a row that has become unusable in the meantime is an error."""
        bad = {problem.file for problem in self.problems}
        rows = [row for row in self.source.rows if row.file not in bad]
        for row in show_progress(rows, "encoding sounds", len(rows)):
            yield from self.source.read(row, self.samples).kept

    def coverage(self) -> dict[str, Any]:
        """What became of every row, for the index."""
        return {
            "rows": len(self.source.rows),
            "stored": len(self.source.rows) - len(self.problems),
            "windows": self.num_windows.total(),
            "dropped_windows": dict(sorted(self.dropped.items())),
            "reasons": dict(sorted(Counter(problem.reason for problem in self.problems).items())),
            "problems": [{"file": problem.file, "reason": problem.reason} for problem in self.problems],
        }


@torch.inference_mode()
def _encode(
    survey: Survey, tokenizer: Tokenizer, text_encoder: TextEncoder, writer: StoreWriter
) -> dict[str, float | int]:
    """Encode and write all windows; measure the reconstruction error on some of the validation split."""
    stride = max(1, math.ceil(survey.num_windows["val"] / NUM_RECONSTRUCTED))
    heard: list[Window] = []
    num_val = 0
    windows = survey.windows()
    while batch := list(itertools.islice(windows, BATCH)):
        tokens = tokenizer.encode(torch.stack([window.waveform for window in batch]))
        text = text_encoder.encode([window.clip.caption for window in batch])
        for place, window in enumerate(batch):
            states = {name: stream[place] for name, stream in text.items()}
            writer.add(window.clip, tokens[place], states, window.waveform)
            if window.clip.split == "val":
                heard += [window] if num_val % stride == 0 else []
                num_val += 1
    return _reconstruction_error(tokenizer, heard)


def _reconstruction_error(tokenizer: Tokenizer, windows: list[Window]) -> dict[str, float | int]:
    """Root mean square of the tokenizer's errors over the slices with sound: padding is easy and not counted."""
    if not windows or not isinstance(tokenizer, LearnsFromSound):
        return {"clips": 0}
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


def _settings(
    source: Source, tokenizer: Tokenizer, text_encoder: TextEncoder, seconds: float, allow_missing: bool
) -> dict[str, Any]:
    """All that decides a store's content, as JSON reads it back."""
    settings = {
        "source": source.settings(),
        "seconds": seconds,
        "allow_missing": allow_missing,
        "tokenizer": {"class": type(tokenizer).__name__, **tokenizer.identity()},
        "text": {"class": type(text_encoder).__name__, **text_encoder.identity()},
    }
    return dict(json.loads(json.dumps(settings)))


def _is_prepared(out: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Whether the finished store is there already; refuse anything else that is in the way."""
    if not is_store(out):
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out}: holds other files and is no store; choose another folder for --out")
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file; choose a folder for --out")
        return False
    if overwrite:
        return False
    found, asked = _flatten(Store(out).index["settings"]), _flatten(settings)
    differing = sorted(key for key in found.keys() | asked.keys() if found.get(key) != asked.get(key))
    if differing:
        key = differing[0]
        more = f" (also {', '.join(differing[1:])})" if differing[1:] else ""
        raise ValueError(
            f"{out}: was prepared with {key} = {found.get(key)!r}, asked for {asked.get(key)!r}{more}; choose "
            "another folder, or delete this one (mntp prepare: --overwrite)"
        )
    return True


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

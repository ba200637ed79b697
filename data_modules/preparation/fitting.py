"""The second pass of a preparation: fit the tokenizer on sounds of the training split, if it learns from sound."""

import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_modules.preparation.findings import Part, Survey
from data_modules.preparation.job import Job
from data_modules.preparation.machine import memory_errors
from data_modules.preparation.work_queue import AGAIN, Piece
from mntp.io.progress import show_progress
from mntp.registry import class_name
from mntp.tokenizers.base import Tokenizer

# A tokenizer learns from at most so many training sounds, spread evenly.
MAX_FITTED = 4096


@runtime_checkable
class LearnsFromSound(Protocol):
    """A tokenizer that is fitted on waveforms [samples] and can measure what it loses."""

    def fit(self, waveforms: Iterable[Tensor]) -> None:
        """Fit in one pass."""

    def reconstruction_error(self, waveform: Tensor) -> dict[str, float]:
        """Root-mean-square errors by name, for waveform [B, samples]."""


def fit_tokenizer(job: Job, survey: Survey) -> None:
    """Fit the job's tokenizer, or load what another process has fitted."""
    tokenizer = job.tokenizer
    if isinstance(tokenizer, LearnsFromSound):
        parts, piece = _piece(job, survey)

        def fit(_: int) -> str:
            shown = show_progress(parts, "learning the tokenizer", len(parts))
            with memory_errors("learning the tokenizer"):
                tokenizer.fit(window.waveform for part in shown for window in survey.read([part], job.size))
            partial = piece.stem.with_suffix(".partial")
            save_file(tokenizer.state_dict(), partial)
            partial.replace(piece.stem.with_suffix(".safetensors"))
            return tokenizer.fingerprint()

        job.share([piece], fit)
    load_fitted(job, survey)


def load_fitted(job: Job, survey: Survey) -> Tokenizer:
    """Return the job's tokenizer with what was learned, in evaluation mode.

    Raises:
        ValueError: what was learned was altered on disk.
    """
    if isinstance(job.tokenizer, LearnsFromSound):
        piece = _piece(job, survey)[1]
        path = piece.stem.with_suffix(".safetensors")
        try:
            job.tokenizer.load_state_dict(load_file(path))
            altered = job.tokenizer.fingerprint() != piece.result()
        except (SafetensorError, RuntimeError, OSError):
            altered = True
        if altered:
            piece.path.unlink(missing_ok=True)
            raise ValueError(f"{path}: what the tokenizer learned was altered on disk; {AGAIN}")
    return job.tokenizer.eval()


def _piece(job: Job, survey: Survey) -> tuple[list[Part], Piece]:
    """The training sounds to learn from, and the piece of work of learning from them."""
    usable = survey.usable("train")
    stride = math.ceil(len(usable) / MAX_FITTED)
    parts = [Part(place, 0, survey.findings[place].windows) for place in usable[::stride]]
    settings = [class_name(type(job.tokenizer)), job.tokenizer.identity(), job.threads]
    return parts, job.piece("tokenizer", 0, len(parts), [settings, job.content(survey, parts)])

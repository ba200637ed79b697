"""Preparing a store: read every sound, fit the tokenizer on the training split, encode all clips, assemble.

The first three steps are cut into pieces of work, files in the hidden folder `.<name>.work` beside the store. When a
preparation is killed and started again, it continues with the pieces that are missing. When it is started several
times at once, the processes share the pieces: each is done under a lock of its own. The last one puts the store
together, under the store's lock, and removes the folder. The store is the same byte for byte in all cases.
"""

import math
import shutil
from pathlib import Path

from data_modules.corpora.base import Source
from data_modules.preparation import reading
from data_modules.preparation.assembling import assemble_store
from data_modules.preparation.encoding import encode_clips
from data_modules.preparation.findings import Survey
from data_modules.preparation.fitting import LearnsFromSound, fit_tokenizer
from data_modules.preparation.job import Job, StoreFinishedError
from data_modules.preparation.machine import use_threads, worker_number
from data_modules.preparation.work_queue import helpers
from data_modules.store.store import Store
from mntp.io.files import disk_errors
from mntp.io.locks import locked
from mntp.text.base import TextEncoder
from mntp.tokenizers.base import Tokenizer


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
    sound_seconds: float | None = None,
) -> Store:
    """Prepare a store, or open it if it was prepared with the same settings.

    Nothing appears at `out` before the store is finished. Processes that prepare the same store share the work.

    Args:
        source: of the clips.
        tokenizer: fitted here on the training split, if it learns from sound.
        text_encoder: of the captions.
        out: the store's folder: absent, empty, or a store.
        seconds: length of a clip, a multiple of the tokenizer's frame.
        allow_missing: leave out sounds that can't be used, and record them, instead of stopping.
        overwrite: replace a store of other settings.
        processes: how many work here, at most one for 256 rows. With more than one, the calling script must be
            importable.
        device: of the tokenizer, `cpu` or `cuda`; process i takes the i-th GPU.
        sound_seconds: longest sound of a clip, silence fills the rest; None is `seconds`.
        threads: of each process, the same on every machine, because another number rounds sums differently.

    Raises:
        UnusableClipsError: some sounds can't be used; it lists all of them.
        ValueError: `seconds` is no multiple of a frame; `out` is something else, or a store of other settings; there
            is no sound to train on; a piece of work was altered on disk.
        OSError: the disk is full or can't be written, or memory ran out; an older store and finished work are kept.
    """
    job = Job(
        source,
        tokenizer,
        text_encoder,
        out,
        seconds,
        allow_missing,
        overwrite,
        processes,
        device,
        threads,
        sound_seconds,
    )
    if not job.is_done():
        helping = range(1, min(processes, math.ceil(len(source.rows) / reading.ROWS_PER_PIECE)))
        with disk_errors(out), helpers(_work, [(job, number) for number in helping]):
            survey = _work(job, 0)
        with locked(out):
            if survey is not None and not job.is_done():
                with disk_errors(out), use_threads(threads):
                    assemble_store(job, survey)
    return Store(out)


def _work(job: Job, number: int) -> Survey | None:
    """Do this process' share of all pieces, and return when all of them are done; None if the store is finished.

    Args:
        job: the preparation.
        number: of this process among those of this preparation.
    """
    try:
        with use_threads(job.threads):
            return _do_pieces(job, worker_number(number, job.processes))
    except (StoreFinishedError, ValueError, OSError):
        if not job.is_done():
            raise
        # Another process has put the store together and removed the pieces.
        shutil.rmtree(job.folder, ignore_errors=True)
        return None


def _do_pieces(job: Job, worker: tuple[int, int]) -> Survey:
    job.folder.mkdir(parents=True, exist_ok=True)
    survey = reading.read_sounds(job, worker)
    survey.check(job.allow_missing, isinstance(job.tokenizer, LearnsFromSound))
    fit_tokenizer(job, survey)
    encode_clips(job, survey, worker)
    return survey

"""`mntp prepare`: turn folders of captioned sounds into a store."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from data_modules.corpora.base import Source
from data_modules.corpora.captioned_folder import CaptionedFolder, Cutting
from data_modules.corpora.mixture import Corpora, read_corpora
from data_modules.preparation.findings import UnusableClipsError
from data_modules.preparation.prepare import prepare_store
from data_modules.store.store import Store
from mntp.text import HashedText, TextEncoder
from mntp.tokenizers import MelTokenizer, Tokenizer


def prepare(
    out: Path,
    captions: Path | None = None,
    audio: Path | None = None,
    corpora: Path | None = None,
    seconds: float = 2.56,
    sound_seconds: float | None = None,
    windows: Cutting = "first",
    tokenizer: Callable[[], Tokenizer] = MelTokenizer,
    text: Callable[[], TextEncoder] = HashedText,
    token_dim: int | None = None,
    limit: int | None = None,
    allow_missing: bool = False,
    overwrite: bool = False,
    processes: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Prepare a store of tokens and text states from captions tables and folders of sounds.

    The same command continues after an interruption. When it runs several times at once, as a SLURM array for example,
    the processes share the work, and the last one puts the store together.

    Args:
        out: folder of the store; appears when it is complete.
        captions: table of one corpus: CSV or JSONL with file,caption[,split], AudioCaps' CSV or WavCaps' JSON as they
            are published; without a split column, 90 % of the files go to train and 5 % each to val and test, by a
            hash of the file name.
        audio: folder that the table's file names are relative to.
        corpora: YAML list of several corpora, instead of captions and audio; an entry is name: {captions, audio[,
            windows, split, weight, exclude]}, with paths relative to the list.
        seconds: length of a clip, a multiple of the tokenizer's frame (0.16 for the suite's own); shorter sounds are
            padded with silence.
        sound_seconds: longest sound of a clip, followed by silence up to `seconds`; without it a clip is all sound.
        windows: cut longer sounds to their first window that is not silent, or into all of them; random: into all,
            of which training hears one a sound and epoch.
        tokenizer: class of the tokenizer, one of the suite's or a dotted path (my_package.MyTokenizer); its arguments
            follow as --tokenizer.<name>.
        text: class of the text encoder, likewise; its arguments follow as --text.<name>.
        token_dim: values per token of MelTokenizer, 1 to 256; short for --tokenizer.token_dim.
        limit: number of rows to take, spread evenly over the tables, for a trial.
        allow_missing: leave out sounds that are missing, unreadable, empty, silent, too short, not finite or
            duplicates, and record them; otherwise any of them is an error.
        overwrite: replace a store of other settings.
        processes: number of processes; 0 is one for each GPU, or one for each core without a GPU.
        device: of the tokenizer; auto is a GPU where there is one.

    Raises:
        ValueError: the table or some sounds are wrong, `out` is taken, or a public model can't be found.
        OSError: the disk is full, or memory ran out.
    """
    source = _source(captions, audio, corpora, windows)
    if limit is not None:
        source.limit(limit)
    device, processes = _machine(device, processes)
    try:
        store = prepare_store(
            source,
            _sized(tokenizer(), token_dim),
            text(),
            out,
            seconds,
            allow_missing,
            overwrite,
            processes=processes,
            device=device,
            sound_seconds=sound_seconds,
        )
    except UnusableClipsError as error:
        _print_problems({"problems": [vars(problem) for problem in error.problems]})
        raise
    _print_problems(store.index["coverage"])
    _print_summary(store)


def _sized(tokenizer: Tokenizer, token_dim: int | None) -> Tokenizer:
    if token_dim is None:
        return tokenizer
    if isinstance(tokenizer, MelTokenizer):
        return MelTokenizer(**tokenizer.settings() | {"token_dim": token_dim})
    raise ValueError(
        f"--token_dim {token_dim} is for MelTokenizer; a token of {type(tokenizer).__name__} has "
        f"{tokenizer.layout.dim} values: leave the option out"
    )


def _source(captions: Path | None, audio: Path | None, corpora: Path | None, windows: Cutting) -> Source:
    if corpora is not None and captions is None and audio is None:
        return Corpora(read_corpora(corpora, windows))
    if corpora is None and captions is not None and audio is not None:
        return CaptionedFolder(captions, audio, windows)
    raise ValueError("give either --captions and --audio, or --corpora for several")


def _machine(device: str, processes: int) -> tuple[Literal["cpu", "cuda"], int]:
    """Device and number of processes to use."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu", processes or len(os.sched_getaffinity(0))
    if not torch.cuda.is_available():
        raise ValueError("--device cuda: no GPU is visible here; choose cpu")
    return "cuda", processes or torch.cuda.device_count()


def _print_problems(coverage: dict[str, Any]) -> None:
    console = Console(stderr=True)
    for problem in coverage["problems"]:
        console.print(f"{problem['file']}: {problem['reason']}", markup=False, highlight=False, soft_wrap=True)


def _print_summary(store: Store) -> None:
    console = Console()
    index = store.index
    coverage, reconstruction = index["coverage"], index["reconstruction"]
    dropped = coverage["dropped_windows"]
    left_out = f", {', '.join(f'{count} {reason}' for reason, count in dropped.items())} left out" if dropped else ""
    lines = [
        f"{store.path}: {coverage['stored']} of {coverage['rows']} sounds, {coverage['windows']} clips of "
        f"{index['settings']['seconds']} s{left_out}; fingerprint {store.fingerprint}",
        *(f"  left out: {count} {reason}" for reason, count in coverage["reasons"].items()),
        *(f"  {name}: {part['stored']} of {part['rows']} sounds" for name, part in coverage.get("corpora", {}).items()),
        *(
            f"  {split}: {numbers['clips']} clips, {numbers['seconds']:.1f} s of sound"
            for split, numbers in index["statistics"].items()
        ),
    ]
    errors = [f"{name} {value}" for name, value in reconstruction.items() if name != "clips"]
    if errors:
        lines.append(f"  reconstruction of {reconstruction['clips']} val clips: {', '.join(errors)}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

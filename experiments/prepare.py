"""`mntp prepare`: turn a folder of captioned sounds into a store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from data_modules.captioned_folder import CaptionedFolder
from data_modules.prepare import UnusableClipsError, prepare_store
from data_modules.store import Store
from mntp.text import HashedText, TextEncoder
from mntp.tokenizers import MelTokenizer, Tokenizer


def prepare(
    captions: Path,
    audio: Path,
    out: Path,
    seconds: float = 2.56,
    windows: Literal["first", "all"] = "first",
    tokenizer: Callable[[], Tokenizer] = MelTokenizer,
    text: Callable[[], TextEncoder] = HashedText,
    token_dim: int | None = None,
    allow_missing: bool = False,
    overwrite: bool = False,
) -> None:
    """Prepare a store of tokens and text states from a captions table and a folder of sounds.

    Args:
        captions: CSV table with a header file,caption[,split]; without a split column, 90 % of the files go to
            train and 5 % each to val and test, by a hash of the file name.
        audio: folder that the table's file names are relative to.
        out: folder of the store; appears when it is complete.
        seconds: length of a clip, a multiple of 0.16; shorter sounds are padded with silence.
        windows: cut longer sounds to their first window that is not silent, or into all of them.
        tokenizer: class of the tokenizer; its arguments follow as --tokenizer.<name>.
        text: class of the text encoder; its arguments follow as --text.<name>.
        token_dim: values per token of MelTokenizer, 1 to 256; short for --tokenizer.token_dim.
        allow_missing: leave out sounds that are missing, unreadable, empty, silent or not finite, and record them.
        overwrite: replace a store of other settings.

    Raises:
        ValueError: the table or some sounds are wrong, `out` is taken, or a public model is not to be had.
        OSError: the disk is full.
    """
    source = CaptionedFolder(captions, audio, windows)
    try:
        store = prepare_store(source, _sized(tokenizer(), token_dim), text(), out, seconds, allow_missing, overwrite)
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
        f"{tokenizer.token_dim} values: leave the option out"
    )


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

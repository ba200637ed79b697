"""The settings of a preparation, and whether a store was made with them."""

import json
from pathlib import Path
from typing import Any

from data_modules.corpora.base import Source
from data_modules.store.store import Store, is_store
from mntp.io.nested import differing
from mntp.registry import class_name
from mntp.text.base import TextEncoder
from mntp.tokenizers.base import Tokenizer


def stamp(path: Path) -> tuple[int, int] | None:
    """Inode and modification time of a file, which change when it is replaced; None where it is absent."""
    stat = path.stat() if path.is_file() else None
    return (stat.st_ino, stat.st_mtime_ns) if stat else None


def store_settings(
    source: Source,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    seconds: float,
    allow_missing: bool,
    sound_seconds: float | None,
) -> dict[str, Any]:
    """All that decides a store's content, as plain JSON values."""
    settings = {
        "source": source.settings(),
        "seconds": seconds,
        "allow_missing": allow_missing,
        "tokenizer": {"class": class_name(type(tokenizer)), **tokenizer.identity()},
        "text": {"class": class_name(type(text_encoder)), **text_encoder.identity()},
    }
    if sound_seconds is not None:
        settings["sound_seconds"] = sound_seconds
    return dict(json.loads(json.dumps(settings)))


def is_prepared(out: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Whether the finished store is there already.

    Raises:
        ValueError: something else is there: other files, or a store of other settings.
    """
    if not is_store(out):
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out}: holds other files and is no store; choose another folder for --out")
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file; choose a folder for --out")
        return False
    if overwrite:
        return False
    if differences := sorted(differing(Store(out).index["settings"], settings)):
        key, found, asked = differences[0]
        others = ", ".join(name for name, _, _ in differences[1:])
        more = f" (also {others})" if others else ""
        raise ValueError(
            f"{out}: was prepared with {key} = {found!r}, asked for {asked!r}{more}; choose another folder, or delete "
            "this one (mntp prepare: --overwrite)"
        )
    return True

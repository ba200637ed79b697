"""The settings of a preparation, and whether a store was made with them."""

import json
from pathlib import Path
from typing import Any

from data_modules.corpora.base import Source
from data_modules.store.store import Store, is_store
from mntp.text.base import TextEncoder
from mntp.tokenizers.base import Tokenizer


def stamp(path: Path) -> tuple[int, int] | None:
    """Inode and modification time of a file, which change when it is replaced; None where it is absent."""
    stat = path.stat() if path.is_file() else None
    return (stat.st_ino, stat.st_mtime_ns) if stat else None


def store_settings(
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


def is_prepared(out: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Whether the finished store is there already; refuse anything else that is in the way."""
    if not is_store(out):
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out}: holds other files and is no store; choose another folder for --out")
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file; choose a folder for --out")
        return False
    if overwrite:
        return False
    found, asked = flatten(Store(out).index["settings"]), flatten(settings)
    differing = sorted(key for key in found.keys() | asked.keys() if found.get(key) != asked.get(key))
    if differing:
        key = differing[0]
        more = f" (also {', '.join(differing[1:])})" if differing[1:] else ""
        raise ValueError(
            f"{out}: was prepared with {key} = {found.get(key)!r}, asked for {asked.get(key)!r}{more}; choose "
            "another folder, or delete this one (mntp prepare: --overwrite)"
        )
    return True


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

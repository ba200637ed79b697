"""What a scoring takes from a run or a store that is named on the command line: the judge's corpus, captions."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from data_modules.scenes import EmbeddedCorpus
from data_modules.store.store import Store, is_store
from experiments.config.resolve import load_config


def judged_corpus(path: Path) -> EmbeddedCorpus:
    """Return the corpus whose judge scores a run or a store: its own if it is synthesised, else the default one.

    Args:
        path: a run's folder, with its config.yaml, or a store's folder, with its index.json.

    Raises:
        ValueError: the folder is neither, or can't be read, or the store's corpus can't be synthesised any more.
    """
    if (path / "config.yaml").is_file():
        corpus = load_config(path / "config.yaml")["data"]["corpus"]
        return EmbeddedCorpus(**(corpus or {}))
    if is_store(path):
        return _corpus_of(path, Store(path).index.get("settings", {}).get("source", {}))
    raise ValueError(f"{path}: neither a run (config.yaml) nor a store (index.json); expected a folder of one of them")


def store_captions(path: Path, names: Collection[str] | None = None, split: str = "test") -> dict[str, str]:
    """Return the captions of a store's clips by id, which is the name of their audio files.

    Args:
        path: a store.
        names: the clips, of any split; if None those of `split`.
        split: `train`, `val` or `test`.

    Raises:
        ValueError: it isn't a readable store, or none of its clips is asked for.
    """
    clips = Store(path).clips
    asked = [clip for clip in clips if (clip.split == split if names is None else clip.id in names)]
    if not asked:
        raise ValueError(
            f"{path}: holds {len(clips)} clips, but none of {f'split {split}' if names is None else 'these'}"
        )
    return {clip.id: clip.caption for clip in asked}


def _corpus_of(path: Path, source: dict[str, Any]) -> EmbeddedCorpus:
    """The corpus of a store's settings, which hold the synthesiser's version, too."""
    if source.get("kind") != "embedded corpus":
        return EmbeddedCorpus()
    names = {field.name for field in dataclasses.fields(EmbeddedCorpus)}
    found = EmbeddedCorpus(**{name: value for name, value in source.items() if name in names})
    if {"kind": source["kind"], **found.settings()} != source:
        raise ValueError(
            f"{path}: its corpus is version {source.get('version')} of the synthesiser, which is now at version "
            f"{found.settings()['version']}; prepare the store again"
        )
    return found

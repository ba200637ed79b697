"""Resolve a pretrained model to a local folder: a path, the hub's cache, or a download into the cache.

The network is used only if the files are neither on the disk nor in the cache, and one question to the hub, with a
timeout of a few seconds, decides whether it can be reached.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

# Groups of file names: a folder is complete if it has one of each group; the first one found is used.
_NEEDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "model": (
        ("config.json",),
        (
            "model.safetensors",
            "model.safetensors.index.json",
            "diffusion_pytorch_model.safetensors",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "diffusion_pytorch_model.bin",
        ),
    ),
    "system": (("config.json",), ("model.safetensors",)),
    "tokenizer": (("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"),),
}
# A tokenizer's further files; which of them there are depends on its kind and age.
_MORE = {
    "model": (),
    "system": (),
    "tokenizer": (
        *("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
    ),
}
# For the hub's answer to one small question: a network that drops packets must not block the program.
TIMEOUT_SECONDS = 5.0
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


def checkpoint_folder(path: str, kind: Literal["model", "system", "tokenizer"] = "model", subfolder: str = "") -> Path:
    """Find the folder that holds a model's config and weights, or a text tokenizer's files.

    Args:
        path: a local folder in the hub's layout, else a name on the hub (`owner/name`); the hub's cache is asked
            before the hub.
        kind: which files are needed; `system` is what `mntp.inference.model_folder` writes.
        subfolder: part of the checkpoint that they lie in.

    Raises:
        ValueError: the local folder lacks a file; or there is no such folder, nothing in the cache, and the hub
            can't be reached or doesn't have it. One line, with what to do.
    """
    local = Path(path).expanduser()
    if local.exists():
        folder = local / subfolder
        lacking = _lacking(kind, (file.name for file in folder.iterdir())) if folder.is_dir() else "no such folder"
        if lacking:
            raise ValueError(
                f"{folder}: {lacking}; expected {path} to be a folder in the hub's layout, with the {kind}'s files "
                f"in {subfolder or 'the folder itself'}"
            )
        return folder
    if not _HUB_ID.fullmatch(path):
        raise ValueError(f"{path}: no such folder; expected a folder in the hub's layout or a name on the hub")
    return _cached(path, kind, subfolder) or _download(path, kind, subfolder)


def _lacking(kind: str, names: Iterable[str]) -> str:
    """Which group has no file among `names`; the empty string where nothing is lacking."""
    found = set(names)
    for group in _NEEDED[kind]:
        if found.isdisjoint(group):
            return f"no {group[0]} there" + (f" (nor {', '.join(group[1:])})" if group[1:] else "")
    return ""


def _cached(path: str, kind: str, subfolder: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    prefix = f"{subfolder}/" if subfolder else ""
    for name in _NEEDED[kind][0]:
        found = try_to_load_from_cache(path, prefix + name)
        if isinstance(found, str) and not _lacking(kind, (file.name for file in Path(found).parent.iterdir())):
            return Path(found).parent
    return None


def _download(path: str, kind: str, subfolder: str) -> Path:
    """Fetch only the files that are needed: a repository may hold the same weights in several formats."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError  # type: ignore[attr-defined]  # the client's

    prefix = f"{subfolder}/" if subfolder else ""
    try:
        info = HfApi().model_info(path, timeout=TIMEOUT_SECONDS)
        names = {file.rfilename for file in info.siblings or ()}
        if lacking := _lacking(kind, (name.removeprefix(prefix) for name in names if name.startswith(prefix))):
            raise ValueError(f"{path} on the hub: {lacking}{f' in {subfolder}' if subfolder else ''}")
        chosen = [next(name for name in group if prefix + name in names) for group in _NEEDED[kind]]
        shards = [name.replace(".index.json", "").replace(".", "-*.", 1) for name in chosen if "index" in name]
        files = [prefix + name for name in (*chosen, *shards, *_MORE[kind])]
        return Path(snapshot_download(path, allow_patterns=files)) / subfolder
    except (OSError, HTTPError) as error:
        known = isinstance(error, RepositoryNotFoundError)
        reason = "it has no such model, or a private one" if known else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path}: no such folder, not in the cache {constants.HF_HUB_CACHE}, and not available from "
            f"{constants.ENDPOINT} ({reason.splitlines()[0]}); give the path of a local copy, put one into ./{path}, "
            f"or fill a cache where there is a network (hf download {path}) and name it in HF_HUB_CACHE"
        ) from error

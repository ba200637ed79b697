"""Writing a store: first the shards, then `clips.csv`, the tokenizer's parameters, coverage and, last, the index."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from data_modules.captions.rows import SPLITS
from data_modules.store.clips import CLIPS, ClipRow, clips_as_csv
from data_modules.store.store import COVERAGE, FORMAT, INDEX, store_fingerprint
from mntp.audio.files import write_audio
from mntp.io.files import atomic_write
from mntp.tokenizers.layout import TokenLayout

CLIPS_PER_SHARD = 1024
# Generated audio is compared with these clips; nothing compares with the training clips.
AUDIO_SPLITS = ("val", "test")


def shard_name(number: int) -> str:
    """File name of a shard in its store."""
    return f"shard-{number:05d}.safetensors"


class ShardWriter:
    """Collects the clips of one shard.

    The same clips give the same bytes: nothing of the machine or the time is written.

    Args:
        path: the shard's file.
        audio: folder for the clips' WAV files.
        layout: of the tokens.
    """

    def __init__(self, path: Path, audio: Path, layout: TokenLayout) -> None:
        self.path = path
        self.clips: list[ClipRow] = []
        self._audio = audio
        self._layout = layout
        self._tokens: list[Tensor] = []
        self._ids: list[Tensor] = []
        self._text: list[dict[str, Tensor]] = []

    def add(
        self, clip: ClipRow, tokens: Tensor, text: dict[str, Tensor], waveform: Tensor, ids: Tensor | None = None
    ) -> None:
        """Append one clip.

        Args:
            clip: its row of `clips.csv`.
            tokens: [N, D] float32, kept as float16.
            text: states [L, dim] float32 of each text stream, kept as float16.
            waveform: [samples] float32 that was encoded, kept as WAV for the splits `val` and `test`.
            ids: [N] of the tokens, kept as int32; None where the layout has no vocabulary.

        Raises:
            ValueError: a value is not finite as float16, or tokens or ids don't fit the layout.
            OSError: the disk is full.
        """
        states = {name: _as_float16(stream, clip) for name, stream in text.items()}
        self._layout.check_tokens((1, *tokens.shape))
        self._tokens.append(_as_float16(tokens, clip))
        if self._layout.vocabulary is not None:
            self._ids.append(_as_int32(ids, clip, len(tokens), self._layout.vocabulary))
        self._text.append(states)
        self.clips.append(clip)
        if clip.split in AUDIO_SPLITS:
            folder = self._audio / clip.split
            folder.mkdir(parents=True, exist_ok=True)
            write_audio(folder / f"{clip.id}.wav", waveform, self._layout.sample_rate)

    def close(self) -> dict[str, Any]:
        """Write the shard and return its entry in the index: clips, bytes, sha256.

        Raises:
            OSError: the disk is full.
        """
        tensors = {"tokens": torch.stack(self._tokens)}
        if self._ids:
            tensors["ids"] = torch.stack(self._ids)
        for name in self._text[0]:
            states = [text[name] for text in self._text]
            lengths = torch.tensor([0, *(len(stream) for stream in states)])
            tensors[f"text.{name}"] = torch.cat(states)
            tensors[f"text.{name}.offsets"] = lengths.cumsum(0)
        return {"clips": len(self.clips), **_write(self.path, save(tensors))}


def finish_store(
    folder: Path,
    clips: Sequence[ClipRow],
    shards: Sequence[dict[str, Any]],
    tokenizer: dict[str, Any],
    text: dict[str, Any],
    samples: int,
    layout: TokenLayout,
    **facts: dict[str, Any],
) -> None:
    """Turn a folder with all its shards and sounds into a store, by writing the rest and the index last of all.

    Args:
        folder: holds the shards, and WAV files in `audio`.
        clips: of all shards, in their order.
        shards: what `ShardWriter.close` returned, in order.
        tokenizer: what `mntp.tokenizers.tokenizer_spec` returns; its `state` goes into its own file.
        text: what `mntp.text.text_spec` returns.
        samples: length of every clip.
        layout: of the tokens.
        **facts: further entries of the index (settings, coverage, reconstruction, reading).

    Raises:
        OSError: the disk is full.
    """
    for split in AUDIO_SPLITS:
        (folder / "audio" / split).mkdir(parents=True, exist_ok=True)
    files = {
        CLIPS: _write(folder / CLIPS, clips_as_csv(clips)),
        "tokenizer.safetensors": _write(folder / "tokenizer.safetensors", save(tokenizer["state"])),
    }
    index: dict[str, Any] = {
        "format": FORMAT,
        "tokenizer": {key: value for key, value in tokenizer.items() if key != "state"},
        "layout": asdict(layout),
        "text": text,
        "samples": samples,
        "statistics": _statistics(clips),
        **facts,
        "shards": [{"file": shard_name(number), **entry} for number, entry in enumerate(shards)],
        "files": files,
    }
    index["fingerprint"] = store_fingerprint(index)
    if "coverage" in facts:
        _write(folder / COVERAGE, _as_json(facts["coverage"]))
    _write(folder / INDEX, _as_json(index))


def _write(path: Path, content: bytes) -> dict[str, Any]:
    with atomic_write(path, "wb") as file:
        file.write(content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _as_float16(values: Tensor, clip: ClipRow) -> Tensor:
    half = values.detach().cpu().to(torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise ValueError(f"{clip.file}: a value does not fit into float16; the sound or the tokenizer is broken")
    return half


def _as_int32(ids: Tensor | None, clip: ClipRow, num_tokens: int, vocabulary: int) -> Tensor:
    if ids is None or ids.shape != (num_tokens,) or ids.is_floating_point() or ids.min() < 0 or ids.max() >= vocabulary:
        got = "none" if ids is None else f"{ids.dtype} of shape {tuple(ids.shape)}"
        raise ValueError(
            f"{clip.file}: the tokenizer gives ids {got}; its vocabulary of {vocabulary} asks for {num_tokens} whole "
            f"numbers from 0 to {vocabulary - 1}"
        )
    return ids.detach().cpu().to(torch.int32).contiguous()


def _statistics(clips: Sequence[ClipRow]) -> dict[str, Any]:
    """Number of clips and seconds of sound, by split."""
    seconds: dict[str, list[float]] = {split: [] for split in SPLITS}
    for clip in clips:
        seconds[clip.split].append(clip.seconds)
    return {split: {"clips": len(each), "seconds": round(sum(each), 3)} for split, each in seconds.items()}

"""Writing a store: clips in, numbered shards, `clips.csv`, the tokenizer's parameters and, last, the index out."""

import csv
import hashlib
import io
import json
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from data_modules.captions import SPLITS
from data_modules.store import FORMAT, ClipRow, store_fingerprint
from mntp.audio import write_audio
from mntp.files import atomic_write

CLIPS_PER_SHARD = 1024
# Generated audio is compared with these clips; nothing compares with the training clips.
AUDIO_SPLITS = ("val", "test")


class StoreWriter:
    """Fills an empty folder with a store; it becomes one when `close` writes the index.

    Same clips, same bytes: nothing of the machine or the time is written.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._clips: list[ClipRow] = []
        self._shards: list[dict[str, Any]] = []
        self._tokens: list[Tensor] = []
        self._text: list[dict[str, Tensor]] = []
        for split in AUDIO_SPLITS:
            (folder / "audio" / split).mkdir(parents=True)

    def add(self, clip: ClipRow, tokens: Tensor, text: dict[str, Tensor], waveform: Tensor) -> None:
        """Append one clip.

        Args:
            clip: its row of `clips.csv`.
            tokens: [N, D] float32, kept as float16.
            text: states [L, dim] float32 of each text stream, kept as float16.
            waveform: [samples] float32 as the tokenizer heard it, kept as WAV for the splits `val` and `test`.

        Raises:
            ValueError: a value is not finite as float16.
            OSError: the disk is full.
        """
        states = {name: _as_float16(stream, clip) for name, stream in text.items()}
        self._tokens.append(_as_float16(tokens, clip))
        self._text.append(states)
        self._clips.append(clip)
        if clip.split in AUDIO_SPLITS:
            write_audio(self.folder / "audio" / clip.split / f"{clip.id}.wav", waveform)
        if len(self._tokens) == CLIPS_PER_SHARD:
            self._write_shard()

    def close(self, tokenizer: dict[str, Any], text: dict[str, Any], samples: int, **facts: dict[str, Any]) -> None:
        """Write what is left, and the index last of all.

        Args:
            tokenizer: what `mntp.tokenizers.tokenizer_spec` returns; its `state` goes into its own file.
            text: what `mntp.text.text_spec` returns.
            samples: length of every window.
            **facts: further entries of the index (settings, coverage, reconstruction).

        Raises:
            OSError: the disk is full.
        """
        if self._tokens:
            self._write_shard()
        files = {
            "clips.csv": self._write("clips.csv", _as_csv(self._clips)),
            "tokenizer.safetensors": self._write("tokenizer.safetensors", save(tokenizer["state"])),
        }
        index: dict[str, Any] = {
            "format": FORMAT,
            "tokenizer": {key: value for key, value in tokenizer.items() if key != "state"},
            "text": text,
            "samples": samples,
            "statistics": _statistics(self._clips),
            **facts,
            "shards": self._shards,
            "files": files,
        }
        index["fingerprint"] = store_fingerprint(index)
        with atomic_write(self.folder / "index.json") as file:
            json.dump(index, file, indent=1, ensure_ascii=False)
            file.write("\n")

    def _write_shard(self) -> None:
        tensors = {"tokens": torch.stack(self._tokens)}
        for name in self._text[0]:
            states = [text[name] for text in self._text]
            lengths = torch.tensor([0, *(len(stream) for stream in states)])
            tensors[f"text.{name}"] = torch.cat(states)
            tensors[f"text.{name}.offsets"] = lengths.cumsum(0)
        name = f"shard-{len(self._shards):05d}.safetensors"
        entry = self._write(name, save(tensors))
        self._shards.append({"file": name, "clips": len(self._tokens), **entry})
        self._tokens, self._text = [], []

    def _write(self, name: str, content: bytes) -> dict[str, Any]:
        with atomic_write(self.folder / name, "wb") as file:
            file.write(content)
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _as_float16(values: Tensor, clip: ClipRow) -> Tensor:
    half = values.detach().cpu().to(torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise ValueError(f"{clip.file}: a value does not fit into float16; the sound or the tokenizer is broken")
    return half


def _as_csv(clips: list[ClipRow]) -> bytes:
    """`clips.csv`, with seconds that read back exactly."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(ClipRow)])
    writer.writerows(astuple(clip) for clip in clips)
    return text.getvalue().encode()


def _statistics(clips: list[ClipRow]) -> dict[str, Any]:
    """Number of clips and seconds of sound, by split."""
    seconds: dict[str, list[float]] = {split: [] for split in SPLITS}
    for clip in clips:
        seconds[clip.split].append(clip.seconds)
    return {split: {"clips": len(each), "seconds": round(sum(each), 3)} for split, each in seconds.items()}

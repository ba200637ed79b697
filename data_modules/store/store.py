"""Reading a store: prepared tokens and text states of captioned clips, in sharded safetensors with an index.

Files, written by `data_modules.store.writer`:

    index.json               format, settings and hash of tokenizer and text encoder, layout of the tokens, statistics,
                             coverage, reconstruction error, weights of corpora, size and sha256 of each file below
    shard-00000.safetensors  tokens [n, N, D] float16; ids [n, N] int32 where the tokenizer has a vocabulary; for each
                             text stream text.<stream> [sum of lengths, dim] float16 and text.<stream>.offsets [n + 1]
                             int64
    tokenizer.safetensors    what the tokenizer learned
    clips.csv                one row a clip, all splits, in the shards' order
    audio/val, audio/test    <id>.wav, the waveform that the tokenizer encoded
    coverage.json            the status of every row of the tables, as in the index

Stores that were made before layouts were recorded are read, too.
"""

import bisect
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from torch import Tensor
from torch.utils.data import get_worker_info

from data_modules.store.clips import read_clips
from data_modules.store.shard import Shard
from mntp.batch import TextStates, TokenBatch
from mntp.io.fingerprint import hash_text
from mntp.io.integrity import verify_files, verify_remote
from mntp.io.storage import Folder
from mntp.tokenizers.layout import TokenLayout, mel_layout

FORMAT = 1
INDEX = "index.json"
COVERAGE = "coverage.json"
AGAIN = "prepare the store again (mntp prepare ... --overwrite)"


@dataclass(frozen=True)
class Coverage:
    """How many rows of the corpora's tables a store holds.

    Attributes:
        stored: rows that became clips.
        rows: rows of the tables.
    """

    stored: int
    rows: int

    @property
    def share(self) -> float:
        """The part that is stored, 0 to 1."""
        return self.stored / self.rows if self.rows else 0.0

    def __str__(self) -> str:
        return f"{self.stored} of {self.rows}"


def is_store(folder: Path) -> bool:
    """Whether `folder` holds a finished store."""
    return (folder / INDEX).is_file()


def store_fingerprint(index: dict[str, Any]) -> str:
    """12 hex digits over tokenizer, text encoder, content of every file but the audio, and weights of corpora."""
    content = [
        index["format"],
        index["tokenizer"]["fingerprint"],
        index["text"]["fingerprint"],
        [shard["sha256"] for shard in index["shards"]],
        {name: entry["sha256"] for name, entry in index["files"].items()},
        *([index["reading"]] if "reading" in index else []),
    ]
    return hash_text(json.dumps(content, sort_keys=True))


class Store:
    """A finished store, opened for reading; shards are opened when first needed, in each process.

    Args:
        path: the store's folder, or a URL that fsspec knows (`s3://bucket/store`).

    Attributes:
        path: the store's folder; of a URL, what follows the protocol.
        index: content of `index.json`.
        clips: the rows of `clips.csv`; a clip's place here is its `row` in the methods below.
        layout: of the tokens.

    Raises:
        ValueError: no store there, another format, or a file of it is damaged; the message names it.
    """

    def __init__(self, path: Path | str) -> None:
        self._folder = Folder(path)
        self.path = self._folder.path or Path(str(path).partition("://")[2])
        self.index = _read_index(self._folder)
        try:
            self.clips = read_clips(self._folder)
        except ValueError as error:
            raise ValueError(f"{error}; {AGAIN}") from error
        self._ends = list(accumulate(shard["clips"] for shard in self.index["shards"]))
        if self._ends[-1:] != [len(self.clips)]:
            raise ValueError(
                f"{self._folder}: clips.csv has {len(self.clips)} rows, but the shards hold "
                f"{sum(shard['clips'] for shard in self.index['shards'])} clips; {AGAIN}"
            )
        self._shards: dict[int, Shard] = {}
        self._process = os.getpid()
        self.layout = self._read_layout()

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens its own shards.
        return {**self.__dict__, "_shards": {}}

    @property
    def fingerprint(self) -> str:
        """12 hex digits: equal only for stores of the same content."""
        return str(self.index["fingerprint"])

    @property
    def samples(self) -> int:
        """Length of every window in samples."""
        return int(self.index["samples"])

    def split(self, name: str) -> list[int]:
        """Rows of the split `train`, `val` or `test`, in order."""
        return [row for row, clip in enumerate(self.clips) if clip.split == name]

    def coverage(self, split: str | None = None) -> Coverage:
        """How many rows of the corpora's tables are stored, of one split or of all.

        A store that was prepared before splits were counted gives the count of all of them.
        """
        counts = self.index["coverage"]
        if split is not None and "splits" in counts:
            counts = counts["splits"].get(split, {"stored": 0, "rows": 0})
        return Coverage(counts["stored"], counts["rows"])

    def read(self, rows: Sequence[int]) -> TokenBatch:
        """Read clips into a batch, in the order of `rows`; text states are padded with zeros to the longest.

        Each shard is asked once for all of its clips, one byte range for each tensor of a clip.

        Raises:
            ValueError: a shard is damaged; the message names it.
        """
        shape = self._shard(0).shape
        tokens = np.empty((len(rows), *shape.tokens), dtype=np.float16)
        ids = np.empty((len(rows), shape.tokens[0]), dtype=np.int64) if shape.has_ids else None
        text: list[dict[str, NDArray[np.float16]]] = [{}] * len(rows)
        by_shard: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            by_shard.setdefault(bisect.bisect_right(self._ends, row), []).append(place)
        for number, places in by_shard.items():
            first = self._ends[number] - self.index["shards"][number]["clips"]
            clips = self._shard(number).read([rows[place] - first for place in places])
            for place, clip in zip(places, clips, strict=True):
                tokens[place] = clip.tokens
                text[place] = clip.text
                if ids is not None and clip.ids is not None:
                    ids[place] = clip.ids
        valid = torch.tensor([self.num_valid_tokens(row) for row in rows])
        return TokenBatch(
            tokens=_as_tensor(tokens, torch.float32),
            valid=torch.arange(shape.tokens[0]) < valid[:, None],
            text={name: _pad([states[name] for states in text]) for name in shape.streams},
            index=torch.tensor(rows),
            captions=[self.clips[row].caption for row in rows],
            ids=None if ids is None else _as_tensor(ids, torch.int64),
        )

    def tokens(self, row: int) -> Tensor:
        """Tokens [N, D] float32 of a clip."""
        return self.read([row]).tokens[0]

    def text(self, row: int) -> dict[str, Tensor]:
        """Text states [L, dim] float32 of a clip's caption, by stream."""
        return {name: stream.states[0] for name, stream in self.read([row]).text.items()}

    def num_valid_tokens(self, row: int) -> int:
        """Tokens of a clip that hold sound: those of every frame that the sound reaches into."""
        return self.layout.num_valid_tokens(self.clips[row].seconds)

    def audio_path(self, row: int) -> Path:
        """WAV file of a clip of the splits `val` and `test`: the normalised and padded waveform that was encoded.

        Raises:
            ValueError: the store is not on a local disk.
        """
        if self._folder.path is None:
            raise ValueError(f"{self._folder}: its sounds are needed as files; copy the store to a local disk")
        clip = self.clips[row]
        return self.path / "audio" / clip.split / f"{clip.id}.wav"

    def preprocessing(self) -> dict[str, Any]:
        """What a checkpoint needs to turn tokens into sound and captions into states.

        Returns:
            `tokenizer` (for `mntp.tokenizers.build_tokenizer`), `text` (for `mntp.text.build_text_encoder`), and
            `samples`, `num_tokens` and `token_dim` of a clip.
        """
        state = load_tensors(self._folder.read_bytes("tokenizer.safetensors"))
        num_tokens, token_dim = self._shard(0).shape.tokens
        return {
            "tokenizer": {**self.index["tokenizer"], "state": state},
            "text": self.index["text"],
            "samples": self.samples,
            "num_tokens": num_tokens,
            "token_dim": token_dim,
        }

    def verify(self) -> None:
        """Check size and sha256 of every file of the index, each once per size and modification time.

        Of a remote store, the size alone, so that nothing is fetched.

        Raises:
            ValueError: a file is missing, truncated or altered; the message names it.
        """
        entries = {shard["file"]: shard for shard in self.index["shards"]} | self.index["files"]
        if self._folder.path is None:
            verify_remote(self._folder, entries, remedy=AGAIN)
        else:
            verify_files(self._folder.path, entries, remedy=AGAIN)

    def _read_layout(self) -> TokenLayout:
        """Read the layout from the index; without one, the store was made by a tokenizer on the log-mel's grid."""
        if "layout" not in self.index:
            return mel_layout(self._shard(0).shape.tokens[1])
        try:
            return TokenLayout.from_index(self.index["layout"])
        except ValueError as error:
            raise ValueError(f"{self._folder / INDEX}: {error}; {AGAIN}") from error

    def _shard(self, number: int) -> Shard:
        if self._process != os.getpid():  # a forked worker
            self._shards, self._process = {}, os.getpid()
        if number not in self._shards:
            self._shards[number] = Shard(self._folder, self.index["shards"][number], AGAIN)
        return self._shards[number]


def _pad(streams: list[NDArray[np.float16]]) -> TextStates:
    """Stack states [L, dim] float16 of several clips, padded with zeros to the longest."""
    lengths = [len(states) for states in streams]
    padded = np.zeros((len(streams), max(lengths), streams[0].shape[1]), dtype=np.float16)
    for place, states in enumerate(streams):
        padded[place, : len(states)] = states
    return TextStates(_as_tensor(padded, torch.float32), torch.tensor(lengths))


def _as_tensor(values: NDArray[Any], dtype: torch.dtype) -> Tensor:
    """The values in a new tensor; in a loader's worker in shared memory, which saves a copy on the way out."""
    tensor = torch.empty(values.shape, dtype=dtype)
    if get_worker_info() is not None:
        tensor.share_memory_()
    return tensor.copy_(torch.from_numpy(values))


def _read_index(folder: Folder) -> dict[str, Any]:
    if not folder.is_file(INDEX):
        raise ValueError(
            f"{folder}: no store there (no {INDEX}); prepare one: mntp prepare --captions captions.csv --audio DIR "
            f"--out {folder}"
        )
    try:
        index = json.loads(folder.read_bytes(INDEX))
        found = index["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / INDEX}: not the index of a store ({error}); {AGAIN}") from error
    if found != FORMAT:
        raise ValueError(f"{folder / INDEX}: format {found!r}, expected {FORMAT}; {AGAIN}")
    return dict(index)

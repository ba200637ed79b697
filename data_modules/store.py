"""Reading a store: prepared tokens and text states of captioned clips, in sharded safetensors with an index.

Layout, written by `store_writer`:

    index.json               format, settings and hash of tokenizer and text encoder, statistics, coverage,
                             reconstruction error, size and sha256 of each file below
    shard-00000.safetensors  tokens [n, N, D] float16; for each text stream text.<stream> [sum of lengths, dim]
                             float16 and text.<stream>.offsets [n + 1] int64
    tokenizer.safetensors    what the tokenizer learned
    clips.csv                one row a clip, all splits, in the shards' order
    audio/val, audio/test    <id>.wav, the window as the tokenizer heard it
"""

import bisect
import csv
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from data_modules.integrity import verify_files
from mntp.tokenizers.base import Tokenizer

FORMAT = 1
INDEX = "index.json"
AGAIN = "prepare the store again (mntp prepare ... --overwrite)"


@dataclass(frozen=True)
class ClipRow:
    """One row of `clips.csv`: a window of a sound, with its caption.

    Attributes:
        id: unique and safe as a file name.
        file: the source's name of the whole sound.
        caption: what is heard.
        split: `train`, `val` or `test`.
        seconds: of sound in the window; the rest is padding.
        start: of the window in the sound, in seconds.
    """

    id: str
    file: str
    caption: str
    split: str
    seconds: float
    start: float


def is_store(folder: Path) -> bool:
    """Whether `folder` holds a finished store."""
    return (folder / INDEX).is_file()


def store_fingerprint(index: dict[str, Any]) -> str:
    """12 hex digits over the tokenizer, the text encoder and the content of every file but the audio."""
    content = [
        index["format"],
        index["tokenizer"]["fingerprint"],
        index["text"]["fingerprint"],
        [shard["sha256"] for shard in index["shards"]],
        {name: entry["sha256"] for name, entry in index["files"].items()},
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


class Store:
    """A finished store, opened for reading; shards are opened when first needed, in each process.

    Args:
        path: the store's folder.

    Attributes:
        path: the store's folder.
        index: content of `index.json`.
        clips: the rows of `clips.csv`; a clip's place here is its `row` in the methods below.

    Raises:
        ValueError: no store there, another format, or a file of it is damaged; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.index = _read_index(self.path)
        self.clips = _read_clips(self.path / "clips.csv")
        self._ends = list(accumulate(shard["clips"] for shard in self.index["shards"]))
        if self._ends[-1:] != [len(self.clips)]:
            raise ValueError(
                f"{self.path}: clips.csv has {len(self.clips)} rows, but the shards hold "
                f"{sum(shard['clips'] for shard in self.index['shards'])} clips; {AGAIN}"
            )
        self._shards: dict[int, _Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens its own shards.
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

    def tokens(self, row: int) -> Tensor:
        """Tokens [N, D] float32 of a clip."""
        shard, place = self._find(row)
        return shard.tokens(place)

    def text(self, row: int) -> dict[str, Tensor]:
        """Text states [L, dim] float32 of a clip's caption, by stream."""
        shard, place = self._find(row)
        return shard.text(place)

    def num_valid_tokens(self, row: int) -> int:
        """Tokens of a clip that hold sound: those of every time slice (0.16 s) that the sound reaches into."""
        samples = round(self.clips[row].seconds * Tokenizer.sample_rate)
        return math.ceil(samples / Tokenizer.samples_per_slice) * Tokenizer.tokens_per_slice

    def audio_path(self, row: int) -> Path:
        """WAV file of a clip of the splits `val` and `test`: normalised and padded, as the tokenizer heard it."""
        clip = self.clips[row]
        return self.path / "audio" / clip.split / f"{clip.id}.wav"

    def front_end(self) -> dict[str, Any]:
        """What a checkpoint needs to turn tokens into sound and captions into states.

        Returns:
            `tokenizer` (for `mntp.tokenizers.build_tokenizer`), `text` (for `mntp.text.build_text_encoder`), and
            `samples`, `num_tokens` and `token_dim` of a clip.
        """
        state = load_file(self.path / "tokenizer.safetensors")
        num_tokens, token_dim = self.tokens(0).shape
        return {
            "tokenizer": {**self.index["tokenizer"], "state": state},
            "text": self.index["text"],
            "samples": self.samples,
            "num_tokens": num_tokens,
            "token_dim": token_dim,
        }

    def verify(self) -> None:
        """Check size and sha256 of every file of the index, each once per size and modification time.

        Raises:
            ValueError: a file is missing, truncated or altered; the message names it.
        """
        entries = {shard["file"]: shard for shard in self.index["shards"]} | self.index["files"]
        verify_files(self.path, entries, remedy=AGAIN)

    def _find(self, row: int) -> tuple["_Shard", int]:
        number = bisect.bisect_right(self._ends, row)
        if number not in self._shards:
            self._shards[number] = _Shard(self.path / self.index["shards"][number]["file"])
        first = self._ends[number] - self.index["shards"][number]["clips"]
        return self._shards[number], row - first


class _Shard:
    """One open shard; a clip is one byte range of it."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: can't be opened as a shard ({error}); {AGAIN}") from error
        self._streams = [
            key.removeprefix("text.").removesuffix(".offsets")
            for key in self._file.keys()  # noqa: SIM118  # no mapping
            if key.endswith(".offsets")
        ]

    @cached_property
    def _offsets(self) -> dict[str, list[int]]:
        return {name: self._file.get_tensor(f"text.{name}.offsets").tolist() for name in self._streams}

    def tokens(self, place: int) -> Tensor:
        return self._file.get_slice("tokens")[place].float()

    def text(self, place: int) -> dict[str, Tensor]:
        states = {}
        for name, offsets in self._offsets.items():
            states[name] = self._file.get_slice(f"text.{name}")[offsets[place] : offsets[place + 1]].float()
        return states


def _read_index(path: Path) -> dict[str, Any]:
    if not is_store(path):
        raise ValueError(
            f"{path}: no store there (no {INDEX}); prepare one: mntp prepare --captions captions.csv --audio DIR "
            f"--out {path}"
        )
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        found = index["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / INDEX}: not the index of a store ({error}); {AGAIN}") from error
    if found != FORMAT:
        raise ValueError(f"{path / INDEX}: format {found!r}, expected {FORMAT}; {AGAIN}")
    return dict(index)


def _read_clips(path: Path) -> list[ClipRow]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_as_clip(row) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the clips of a store ({error}); {AGAIN}") from error


def _as_clip(row: dict[str, str]) -> ClipRow:
    seconds, start = float(row["seconds"]), float(row["start"])
    return ClipRow(row["id"], row["file"], row["caption"], row["split"], seconds, start)

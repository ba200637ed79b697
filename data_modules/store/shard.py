"""One shard of a store, read in byte ranges: a clip is one range of each tensor.

The file is safetensors: 8 bytes with the length of a JSON header, the header {name: {dtype, shape, data_offsets}},
and the tensors' bytes (github.com/huggingface/safetensors, "Format"). Its own reader maps whole local files only.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mntp.io.storage import Folder

_PREFIX = 8
_MAX_HEADER = 1 << 20
_BYTES = {"F16": 2, "I32": 4, "I64": 8}


@dataclass(frozen=True)
class Shape:
    """Shape of a clip: its tokens (N, D), the width of each text stream, and whether its tokens have ids."""

    tokens: tuple[int, int]
    streams: dict[str, int]
    has_ids: bool = False


@dataclass(frozen=True)
class StoredClip:
    """A clip as it is stored: tokens [N, D] float16, text states [L, dim] float16 by stream, ids [N] int32 or None.

    They are read-only views.
    """

    tokens: NDArray[np.float16]
    text: dict[str, NDArray[np.float16]]
    ids: NDArray[np.int32] | None = None


class Shard:
    """An open shard.

    Args:
        folder: of the store.
        entry: its entry in the store's index.
        remedy: what to do about a damaged file, the end of a message.

    Attributes:
        shape: of its clips.

    Raises:
        ValueError: it is missing or not such a file.
    """

    def __init__(self, folder: Folder, entry: dict[str, Any], remedy: str) -> None:
        name = folder / entry["file"]
        try:
            self._file = folder.open(entry["file"])
            self._tensors, self._start = _read_header(self._file.read([(0, _PREFIX)])[0], self._file)
            end = self._start + max(tensor["data_offsets"][1] for tensor in self._tensors.values())
            if self._file.size() != end:
                raise ValueError(f"{self._file.size()} bytes, the header tells of {end}")
            self.shape = self._read_shape(entry["clips"])
            self._offsets = {stream: self._read_offsets(stream) for stream in self.shape.streams}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{name}: can't be opened as a shard ({error}); {remedy}") from error

    def read(self, places: Sequence[int]) -> list[StoredClip]:
        """Read the clips at `places`, in that order; the file itself is read from front to back."""
        ranges = [tuple(self._ranges(place)) for place in places]
        wanted = sorted(set(itertools.chain(*ranges)))
        found = dict(zip(wanted, self._file.read(wanted), strict=True))
        clips = []
        for parts in ranges:
            tokens, *others = (found[part] for part in parts)
            ids = np.frombuffer(others.pop(), dtype=np.int32) if self.shape.has_ids else None
            text = {
                name: np.frombuffer(stream, dtype=np.float16).reshape(-1, dim)
                for (name, dim), stream in zip(self.shape.streams.items(), others, strict=True)
            }
            clips.append(StoredClip(np.frombuffer(tokens, dtype=np.float16).reshape(self.shape.tokens), text, ids))
        return clips

    def _ranges(self, place: int) -> list[tuple[int, int]]:
        """Byte ranges of a clip: its tokens, each of its text streams, and its ids where there are any."""
        num_tokens, dim = self.shape.tokens
        ranges = [self._range("tokens", place * num_tokens * dim, (place + 1) * num_tokens * dim)]
        for name, dim in self.shape.streams.items():
            offsets = self._offsets[name]
            ranges.append(self._range(f"text.{name}", offsets[place] * dim, offsets[place + 1] * dim))
        if self.shape.has_ids:
            ranges.append(self._range("ids", place * num_tokens, (place + 1) * num_tokens))
        return ranges

    def _range(self, name: str, first: int, last: int) -> tuple[int, int]:
        """Bytes of the values `first` up to `last`, not included, of a tensor."""
        tensor = self._tensors[name]
        start = self._start + tensor["data_offsets"][0]
        size = _BYTES[tensor["dtype"]]
        return start + first * size, start + last * size

    def _read_shape(self, clips: int) -> Shape:
        found, num_tokens, dim = self._tensors["tokens"]["shape"]
        if found != clips:
            raise ValueError(f"{found} clips, the index tells of {clips}")
        names = [name.removeprefix("text.") for name in self._tensors if f"{name}.offsets" in self._tensors]
        widths = {name: self._tensors[f"text.{name}"]["shape"][1] for name in sorted(names)}
        has_ids = "ids" in self._tensors
        if has_ids and self._tensors["ids"]["shape"] != [clips, num_tokens]:
            raise ValueError(f"ids of shape {self._tensors['ids']['shape']}, expected {[clips, num_tokens]}")
        return Shape((num_tokens, dim), widths, has_ids)

    def _read_offsets(self, stream: str) -> list[int]:
        name = f"text.{stream}.offsets"
        (count,) = self._tensors[name]["shape"]
        return np.frombuffer(self._file.read([self._range(name, 0, count)])[0], dtype=np.int64).tolist()


def _read_header(prefix: memoryview, file: Any) -> tuple[dict[str, Any], int]:
    """Tensors by name, and where their bytes begin."""
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _PREFIX or not 0 < length <= _MAX_HEADER:
        raise ValueError("no header of safetensors")
    tensors = json.loads(bytes(file.read([(_PREFIX, _PREFIX + length)])[0]))
    tensors.pop("__metadata__", None)
    return tensors, _PREFIX + length

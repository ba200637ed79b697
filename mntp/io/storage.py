"""Files of a folder, on a local disk or at any URL that fsspec knows (`s3://`, `gs://`, `memory://`)."""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import fsspec


class File(Protocol):
    """A file to be read in pieces."""

    name: str

    def size(self) -> int:
        """Bytes of the whole file."""

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """The bytes from `start` up to `end` (not included) of each range, in their order."""


class LocalFile:
    """A file on a local disk, mapped into memory: reading copies nothing.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with path.open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self._bytes)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Views of the map."""
        return [self._bytes[start:end] for start, end in ranges]


class RemoteFile:
    """A file at a URL; a read fetches exactly the ranges that are asked for, all at once."""

    def __init__(self, system: Any, path: str, name: str) -> None:
        self.name = name
        self._system = system
        self._path = path

    def size(self) -> int:
        """Bytes of the whole file."""
        return int(self._system.size(self._path))

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Copies of the bytes."""
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
        paths = [self._path] * len(ranges)
        return [memoryview(part) for part in self._system.cat_ranges(paths, starts, ends, on_error="raise")]


class Folder:
    """A folder of files, by path or URL. It can be sent to another process.

    Args:
        where: a path, or a URL with `://`.

    Raises:
        ValueError: no such protocol, or its package is not installed.
    """

    def __init__(self, where: Path | str) -> None:
        self.where = str(where)
        self.is_local = "://" not in self.where or self.where.startswith("file://")
        self.path = Path(self.where.removeprefix("file://")) if self.is_local else None
        if not self.is_local:
            self._system()

    def __str__(self) -> str:
        return self.where if self.path is None else str(self.path)

    def __truediv__(self, name: str) -> str:
        return f"{self.where.rstrip('/')}/{name}" if self.path is None else str(self.path / name)

    def is_file(self, name: str) -> bool:
        """Whether there is such a file."""
        if self.path is not None:
            return (self.path / name).is_file()
        system, root = self._system()
        return bool(system.isfile(f"{root}/{name}"))

    def read_bytes(self, name: str) -> bytes:
        """A whole file.

        Raises:
            OSError: it is missing or can't be read.
        """
        if self.path is not None:
            return (self.path / name).read_bytes()
        system, root = self._system()
        return bytes(system.cat_file(f"{root}/{name}"))

    def open(self, name: str) -> File:
        """Open a file for reading in pieces.

        Raises:
            OSError: it is missing or can't be read.
        """
        if self.path is not None:
            return LocalFile(self.path / name)
        system, root = self._system()
        return RemoteFile(system, f"{root}/{name}", self / name)

    def _system(self) -> tuple[Any, str]:
        """The file system, which fsspec keeps for each process, and the folder's path in it."""
        try:
            system, root = fsspec.url_to_fs(self.where)
        except (ValueError, ImportError) as error:
            raise ValueError(f"{self.where}: {error}") from error
        return system, str(root).rstrip("/")

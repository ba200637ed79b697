"""Several corpora as one source, listed in a YAML file."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from data_modules.corpora.base import ClipSize, Row, Source, UnusableClip, Windows, rename
from data_modules.corpora.captioned_folder import CaptionedFolder, Cutting
from mntp.registry import did_you_mean


@dataclass(frozen=True)
class Corpus:
    """One table of sounds among several.

    Attributes:
        captions: the table, see `data_modules.captions.published.read_table`.
        audio: the folder that the table's files lie in.
        windows: as in `CaptionedFolder`.
        split: as in `CaptionedFolder`.
        exclude: as in `CaptionedFolder`.
        weight: how often an epoch of training takes each of its clips, on average.
    """

    captions: Path
    audio: Path
    windows: Cutting = "first"
    split: str | None = None
    exclude: Path | None = None
    weight: float = 1.0


class Corpora(Source):
    """Corpora one after the other; ids and file names begin with the corpus' name.

    Args:
        corpora: by name, which are letters, digits and underscores.

    Raises:
        ValueError: a name or a weight is out of range, or a corpus can't be read; the message names it.
    """

    def __init__(self, corpora: Mapping[str, Corpus]) -> None:
        self.corpora = dict(corpora)
        self._folders: dict[str, CaptionedFolder] = {}
        rows: list[Row] = []
        for name, corpus in self.corpora.items():
            if not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise ValueError(f"corpus {name!r}: expected a name of letters, digits and underscores")
            if not 0 < corpus.weight < float("inf"):
                raise ValueError(f"corpus {name}: weight is {corpus.weight}; expected a number above 0")
            folder = CaptionedFolder(corpus.captions, corpus.audio, corpus.windows, corpus.split, corpus.exclude)
            self._folders[name] = folder
            rows += [_prefixed(row, name) for row in folder.rows]
        self.rows = rows

    @property
    def num_excluded(self) -> int:
        """Rows of the tables that the corpora's `exclude` name."""
        return sum(folder.num_excluded for folder in self._folders.values())

    def settings(self) -> dict[str, Any]:
        """Each corpus' settings and weight, of the rows that are kept here."""
        kept: dict[str, list[Row]] = {name: [] for name in self.corpora}
        for row in self.rows:
            kept[row.corpus].append(_bare(row))
        settings = {}
        for name, rows in kept.items():
            self._folders[name].rows = rows
            settings[name] = {**self._folders[name].settings(), "weight": self.corpora[name].weight}
        return {"kind": "corpora", **settings}

    def stamp(self, row: Row) -> Any:
        """As the row's corpus says."""
        return self._folders[row.corpus].stamp(_bare(row))

    def reading(self) -> dict[str, Any]:
        """Weights, and which corpora are cut at random."""
        entries = [
            {"name": name, "weight": corpus.weight, "one_window": corpus.windows == "random"}
            for name, corpus in self.corpora.items()
        ]
        return {"corpora": entries}

    def read(self, row: Row, size: ClipSize) -> Windows:
        """Read one file of one corpus and cut it."""
        try:
            windows = self._folders[row.corpus].read(_bare(row), size)
        except UnusableClip as problem:
            raise UnusableClip(row.file, problem.reason) from problem
        return dataclasses.replace(windows, kept=[rename(window, row.file) for window in windows.kept])


def read_corpora(path: Path, windows: Cutting = "first") -> dict[str, Corpus]:
    """Read a list of corpora: a mapping from names to the attributes of `Corpus`.

    Args:
        path: of the list; paths in it are relative to its folder.
        windows: of corpora that don't name theirs.

    Raises:
        ValueError: it is missing, malformed, or has an unknown or missing key, or a value of another type.
    """
    known = get_type_hints(Corpus)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file; expected YAML with one entry name: {{captions: .., audio: ..}} a corpus"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected a mapping, one entry name: {{captions: .., audio: ..}} a corpus")
    corpora = {}
    for name, values in content.items():
        where = f"{path}, corpus {name}"
        if not isinstance(values, dict) or not {"captions", "audio"} <= values.keys():
            raise ValueError(f"{where}: expected a mapping with captions and audio")
        for key, value in values.items():
            if key not in known:
                raise ValueError(f"{where}: unknown key {key!r}{did_you_mean(str(key), known)}")
            expected = (int, float) if key == "weight" else str
            if not isinstance(value, expected) or isinstance(value, bool):
                raise ValueError(f"{where}: {key} is {value!r}; expected {'a number' if key == 'weight' else 'text'}")
        paths = {key: path.parent / values[key] for key in ("captions", "audio", "exclude") if key in values}
        corpora[str(name)] = Corpus(**{"windows": windows, **values, **paths})
    return corpora


def _prefixed(row: Row, corpus: str) -> Row:
    return dataclasses.replace(row, id=f"{corpus}__{row.id}", file=f"{corpus}/{row.file}", corpus=corpus)


def _bare(row: Row) -> Row:
    """The row as its own corpus knows it, but for the id, which stays unique."""
    return dataclasses.replace(row, file=row.file.removeprefix(f"{row.corpus}/"))

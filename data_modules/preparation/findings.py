"""The status of every row of a source after the first pass (stored, or why not), and the clips that follow from it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_modules.captions.rows import SPLITS
from data_modules.corpora.base import ClipSize, Finding, Row, Source, UnusableClip, Window

# Of equal sounds the one in the test split is kept, so that none is trained on and none is missing from the scores.
KEEPING_ORDER = ("test", "val", "train")


class UnusableClipsError(ValueError):
    """Some rows of a source can't be used.

    Attributes:
        problems: one a row, in the source's order.
    """

    def __init__(self, problems: Sequence[UnusableClip], num_rows: int) -> None:
        reasons = Counter(problem.reason for problem in problems)
        self.problems = problems
        super().__init__(
            f"{len(problems)} of {num_rows} sounds can't be used "
            f"({', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))}; "
            f"first: {problems[0]}): correct the table or the files, or go on without them with --allow_missing"
        )


@dataclass(frozen=True)
class Part:
    """The windows `first` up to `last`, not included, of the row at `place`."""

    place: int
    first: int
    last: int


class Survey:
    """The findings of all rows, and the clips that follow from them.

    A row is a duplicate if its sound, or its file with the same caption, is stored already; a file may have several
    captions within a split. Of equal sounds the row in the test split is kept, else the one in val, else the first.

    Args:
        source: of the sounds.
        findings: one for each of its rows.

    Attributes:
        findings: with duplicates marked as such.
        problems: the rows that can't be used, in the source's order.
    """

    def __init__(self, source: Source, findings: Sequence[Finding]) -> None:
        self.source = source
        self.findings = list(findings)
        for place in _duplicates(source.rows, findings):
            self.findings[place] = Finding("duplicate")
        self.problems = [
            UnusableClip(row.file, finding.reason)
            for row, finding in zip(source.rows, self.findings, strict=True)
            if finding.reason
        ]

    def check(self, allow_missing: bool, learns: bool) -> None:
        """Refuse to continue, if there is a reason.

        Args:
            allow_missing: whether rows may be unusable.
            learns: whether the tokenizer has to be fitted.

        Raises:
            UnusableClipsError: some rows can't be used and that isn't allowed.
            ValueError: there is no training window to learn from, or no window at all.
        """
        if self.problems and not allow_missing:
            raise UnusableClipsError(self.problems, len(self.findings))
        if learns and not self.num_windows("train"):
            raise ValueError("there is no usable sound in the split train; expected at least one to learn from")
        if not self.num_windows(*SPLITS):
            raise ValueError("there is no usable sound; expected at least one")

    def num_windows(self, *splits: str) -> int:
        """How many clips the splits have."""
        rows = zip(self.source.rows, self.findings, strict=True)
        return sum(finding.windows for row, finding in rows if row.split in splits)

    def usable(self, split: str) -> list[int]:
        """Places of the rows of a split that give windows."""
        rows = zip(self.source.rows, self.findings, strict=True)
        return [place for place, (row, finding) in enumerate(rows) if row.split == split and finding.windows]

    def shards(self, clips_per_shard: int) -> list[list[Part]]:
        """The clips of all rows, one after the other, dealt into shards of one size."""
        shards: list[list[Part]] = []
        room = 0
        for place, finding in enumerate(self.findings):
            first = 0
            while first < finding.windows:
                if room == 0:
                    shards.append([])
                    room = clips_per_shard
                last = min(finding.windows, first + room)
                shards[-1].append(Part(place, first, last))
                room -= last - first
                first = last
        return shards

    def read(self, parts: Iterable[Part], size: ClipSize) -> Iterator[Window]:
        """Read windows again.

        Raises:
            ValueError: a sound is not what it was; the message names its file.
        """
        for part in parts:
            row, finding = self.source.rows[part.place], self.findings[part.place]
            windows = self.source.read(row, size)
            if (len(windows.kept), windows.content) != (finding.windows, finding.content):
                raise ValueError(f"{row.file}: the sound was changed while it was prepared; run the same command again")
            yield from windows.kept[part.first : part.last]

    def coverage(self) -> dict[str, Any]:
        """The status of every row, as plain JSON values."""
        dropped: Counter[str] = Counter()
        for finding in self.findings:
            dropped.update(finding.dropped)
        rows = self.source.rows
        coverage = {
            **self._count(range(len(rows))),
            "windows": self.num_windows(*SPLITS),
            "dropped_windows": dict(sorted(dropped.items())),
            "reasons": dict(sorted(Counter(problem.reason for problem in self.problems).items())),
            "problems": [{"file": problem.file, "reason": problem.reason} for problem in self.problems],
            "splits": self._count_by([row.split for row in rows]),
        }
        if any(row.corpus for row in rows):
            coverage["corpora"] = self._count_by([row.corpus for row in rows])
        if excluded := getattr(self.source, "num_excluded", 0):
            coverage["excluded"] = excluded
        return coverage

    def _count(self, places: Iterable[int]) -> dict[str, int]:
        reasons = [self.findings[place].reason for place in places]
        return {"rows": len(reasons), "stored": reasons.count("")}

    def _count_by(self, groups: list[str]) -> dict[str, dict[str, int]]:
        places: dict[str, list[int]] = {}
        for place, group in enumerate(groups):
            places.setdefault(group, []).append(place)
        return {group: self._count(each) for group, each in places.items()}


def _duplicates(rows: Sequence[Row], findings: Sequence[Finding]) -> list[int]:
    """Places of the rows that are duplicates of others."""
    order = sorted(range(len(rows)), key=lambda place: (KEEPING_ORDER.index(rows[place].split), place))
    kept: dict[str, Row] = {}
    said: set[tuple[str, str]] = set()
    duplicates = []
    for place in order:
        row, content = rows[place], findings[place].content
        if not content:
            continue
        first = kept.setdefault(content, row)
        if (row.file, row.split) != (first.file, first.split) or (row.file, row.caption) in said:
            duplicates.append(place)
        said.add((row.file, row.caption))
    return duplicates

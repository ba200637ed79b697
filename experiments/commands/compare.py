"""Rows that were scored by `mntp evaluate`, side by side: `mntp compare`."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.scoring.intervals import Replicates, paired_difference, read_replicates, replicates_path
from experiments.scoring.metrics import METRICS
from mntp.io.files import atomic_write
from mntp.io.json_lines import read_json

EXTRA_DIGITS = 4  # of scores that no table of the paper has


@dataclass(frozen=True)
class ScoredRow:
    """What `mntp evaluate` wrote for one system."""

    name: str
    metrics: dict[str, Any]
    replicates: dict[str, Replicates]


def compare(metrics: list[Path], out: Path | None = None) -> None:
    """Show scored systems side by side, each one's difference from the first with a paired interval.

    Args:
        metrics: JSON files of `mntp evaluate`, the first being what the others are compared with.
        out: CSV file to write, with a line for each system and score.

    Raises:
        ValueError: a file isn't one of these, two have the same name, or they were scored in different ways: with
            other references, captions, networks or clips.
    """
    rows = [_read(path) for path in metrics]
    _check_alike(rows, metrics)
    scores = [name for name in rows[0].metrics["intervals"] if all(name in row.metrics for row in rows)]
    console = Console()
    console.print(_table(rows, scores))
    console.print(
        "± is half of the 95 % interval over clips; in brackets that of the difference from the first row, on the same "
        "clips. One training seed alone says nothing of how another would end.",
        highlight=False,
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out) as file:
            file.write(_csv(rows, scores))


def _read(path: Path) -> ScoredRow:
    content = read_json(path)
    if not {"scoring_hash", "protocol", "intervals"} <= content.keys():
        raise ValueError(f"{path}: no such file, or none that mntp evaluate wrote; expected its --out")
    return ScoredRow(path.stem, content, read_replicates(replicates_path(path)))


def _check_alike(rows: Sequence[ScoredRow], paths: Sequence[Path]) -> None:
    first = rows[0].metrics
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"compare: two files are named {', '.join(sorted(twice))}; rows are told apart by these names")
    for row, path in zip(rows[1:], paths[1:], strict=True):
        if row.metrics["scoring_hash"] != first["scoring_hash"]:
            mine, theirs = row.metrics["protocol"]["scoring"], first["protocol"]["scoring"]
            differing = [f"{key} {theirs[key]} and {mine.get(key)}" for key in theirs if theirs[key] != mine.get(key)]
            raise ValueError(
                f"{paths[0]} and {path} can't stand in one table, they were scored with {'; '.join(differing)}: score "
                "them anew with the same references, captions and judge"
            )


def _difference(row: ScoredRow, first: ScoredRow, score: str) -> tuple[str, list[str]]:
    """For readers, and as fields of the CSV file."""
    if row is first or score not in row.replicates or score not in first.replicates:
        return "", ["", "", "", ""]
    values = row.metrics[score], row.replicates[score], first.metrics[score], first.replicates[score]
    found = paired_difference(*values)
    if found is None:
        return "", ["", "", "", ""]
    fields = [repr(found.value), repr(found.low), repr(found.high), "yes" if found.separable else "no"]
    return found.shown(_digits(score), found.separable), fields


def _digits(score: str) -> int:
    return METRICS[score].digits if score in METRICS else EXTRA_DIGITS


def _table(rows: Sequence[ScoredRow], scores: Sequence[str]) -> Table:
    about = rows[0].metrics
    title = f"judge {about['judge_kind']} {about['judge']}, N = {about['num_clips']}, scoring {about['scoring_hash']}"
    table = Table(title=title, title_justify="left")
    for name in ("row", "protocol", *scores):
        table.add_column(name + (METRICS[name].arrow() if name in METRICS else ""), overflow="fold")
    for row in rows:
        cells = []
        for score in scores:
            low, high = row.metrics["intervals"][score]
            value = f"{row.metrics[score]:.{_digits(score)}f} ± {(high - low) / 2:.{_digits(score)}f}"
            cells.append("\n".join(filter(None, (value, _difference(row, rows[0], score)[0]))))
        table.add_row(row.name, row.metrics["protocol_hash"], *cells)
    return table


def _csv(rows: Sequence[ScoredRow], scores: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([
        "row", "metric", "value", "ci_low", "ci_high", "n", "coverage",
        "difference", "difference_ci_low", "difference_ci_high", "separable", "scoring_hash", "protocol_hash",
    ])  # fmt: skip
    for row in rows:
        about = row.metrics
        for score in scores:
            value = [repr(about[score]), *map(repr, about["intervals"][score]), about["num_clips"], about["coverage"]]
            hashes = [about["scoring_hash"], about["protocol_hash"]]
            writer.writerow([row.name, score, *value, *_difference(row, rows[0], score)[1], *hashes])
    return text.getvalue()

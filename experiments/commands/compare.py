"""Scored systems side by side, folders and runs of an ablation alike: `mntp compare`."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.scoring.intervals import (
    REPLICATES,
    Difference,
    Replicates,
    paired_difference,
    read_replicates,
    replicates_path,
)
from experiments.scoring.metrics import METRICS
from experiments.scoring.protocol import score_facts, scoring_hash
from mntp.io.files import atomic_write
from mntp.io.json_lines import read_json

EXTRA_DIGITS = 4  # of scores that no table has


@dataclass(frozen=True)
class ScoredRow:
    """What `mntp evaluate` or a run of an ablation wrote for one system."""

    name: str
    metrics: dict[str, Any]
    replicates: dict[str, Replicates]

    @property
    def scores(self) -> list[str]:
        """The names of its scores."""
        return list(self.metrics["protocol"]["scoring"]["inputs"])

    def facts(self, score: str) -> dict[str, Any]:
        """What a score rests on."""
        return score_facts(self.metrics["protocol"], score)


def compare(metrics: list[Path], out: Path | None = None) -> None:
    """Show scored systems side by side, with each one's difference from the first and its paired interval.

    Scores are compared one by one: those that rest on other references, captions, networks or definitions, or that a
    file lacks, are left out, and a line says why.

    Args:
        metrics: JSON files of `mntp evaluate`, or the metrics.json of an ablation's runs; the others are compared with
            the first.
        out: CSV file to write, with a line for each system and score.

    Raises:
        ValueError: a file isn't one of these, two rows have the same name, or no score can be compared.
    """
    rows = [_read(path) for path in metrics]
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"compare: two files are named {', '.join(sorted(twice))}; rows are told apart by these names")
    notes: list[str] = []
    scores = _comparable(rows, notes)
    if not scores:
        raise ValueError(
            f"compare: no score can be compared ({'; '.join(notes)}); score all systems anew with the same references, "
            "captions and judge"
        )
    notes += [*_without_difference(rows, scores), *_doubts(rows)]
    console = Console()
    console.print(_table(rows, scores))
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    console.print(
        "± is half of the 95 % interval over clips; in brackets that of the difference from the first system, on the "
        "same clips. One training seed says nothing about how another would end.",
        highlight=False,
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out) as file:
            file.write(_csv(rows, scores))


def _read(path: Path) -> ScoredRow:
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; expected the --out of mntp evaluate, or runs/RUN/evals/PROTOCOL/metrics.json"
        )
    content = read_json(path)
    if "inputs" not in content.get("protocol", {}).get("scoring", {}):
        raise ValueError(
            f"{path}: not the scores of mntp evaluate or of an ablation's run, or written by an earlier version; score "
            "anew"
        )
    values = read_replicates(replicates_path(path)) or read_replicates(path.with_name(REPLICATES))
    return ScoredRow(_row_name(path.resolve()), content, values)


def _row_name(path: Path) -> str:
    """A file's name, or the name of the run or folder that a file `metrics.json` lies in."""
    if path.stem != "metrics":
        return path.stem
    folder = path.parent
    return f"{folder.parents[1].name} {folder.name}" if folder.parent.name == "evals" else folder.name


def _comparable(rows: Sequence[ScoredRow], notes: list[str]) -> list[str]:
    """Scores that all rows have and that rest on the same facts; why the others are left out goes into `notes`."""
    found: list[str] = []
    left_out: dict[str, list[str]] = {}
    for score in dict.fromkeys(score for row in rows for score in row.scores):
        if reason := _why_not_comparable(score, rows):
            left_out.setdefault(reason, []).append(score)
        else:
            found.append(score)
    order = list(METRICS)  # as in tables, the others at the end
    found.sort(key=lambda score: order.index(score) if score in order else len(order))
    notes += [f"left out: {', '.join(scores)}, because {reason}" for reason, scores in left_out.items()]
    return found


def _why_not_comparable(score: str, rows: Sequence[ScoredRow]) -> str:
    if lacking := [row.name for row in rows if score not in row.scores]:
        return f"{', '.join(lacking)} lacks it"
    first, facts = rows[0], rows[0].facts(score)
    for row in rows[1:]:
        theirs = row.facts(score)
        if keys := [key for key in {**facts, **theirs} if facts.get(key) != theirs.get(key)]:
            values = ", ".join(f"{key} ({facts.get(key)} and {theirs.get(key)})" for key in keys)
            return f"{first.name} and {row.name} differ in {values}"
    return ""


def _without_difference(rows: Sequence[ScoredRow], scores: Sequence[str]) -> Iterator[str]:
    """Lines that say why differences are missing, one for each reason and row."""
    without = [row.name for row in rows if not row.replicates]
    if without:
        yield f"no differences: beside {', '.join(without)} there is no file of the clips' values; score anew"
    complete = [row for row in rows if row.replicates]
    for row in complete[1:] if complete[:1] == list(rows[:1]) else ():
        for score in scores:
            mine, other = (len(each.replicates.get(score, ())) for each in (row, rows[0]))
            if mine != other:
                yield (
                    f"no difference of {score}: {row.name} holds {mine} values and {rows[0].name} {other}; score both "
                    "with the same version"
                )


def _doubts(rows: Sequence[ScoredRow]) -> Iterator[str]:
    """Lines on what makes scores doubtful: another domain than the judge's, faults of the audio."""
    if strange := [row.name for row in rows if row.metrics.get("out_of_domain")]:
        yield f"out of domain: the judge was trained on other audio than that of {', '.join(strange)}"
    for row in rows:
        for fault in row.metrics.get("health", {}).get("faults", []):
            yield f"fault of {row.name}: {fault['line']}"


def _difference(row: ScoredRow, first: ScoredRow, score: str) -> Difference | None:
    if row is first or score not in row.replicates or score not in first.replicates:
        return None
    return paired_difference(row.metrics[score], row.replicates[score], first.metrics[score], first.replicates[score])


def _digits(score: str) -> int:
    return METRICS[score].digits if score in METRICS else EXTRA_DIGITS


def _table(rows: Sequence[ScoredRow], scores: Sequence[str]) -> Table:
    about = rows[0].metrics
    title = f"{about['judge_kind']} scores, N = {about['num_clips']}, scoring {scoring_hash(about['protocol'])}"
    table = Table(title=title, title_justify="left")
    for name in ("score", *(row.name for row in rows)):
        table.add_column(name, overflow="fold")
    for score in scores:
        name = score + (METRICS[score].arrow() if score in METRICS else "")
        table.add_row(name, *(_cell(row, rows[0], score) for row in rows))
    table.add_row("protocol", *(row.metrics["protocol_hash"] for row in rows))
    return table


def _cell(row: ScoredRow, first: ScoredRow, score: str) -> str:
    digits = _digits(score)
    lines = [f"{row.metrics[score]:.{digits}f}"]
    if ends := row.metrics["intervals"].get(score):
        lines[0] += f" ± {(ends[1] - ends[0]) / 2:.{digits}f}"
    if difference := _difference(row, first, score):
        lines.append(difference.shown(digits, difference.separable))
    return "\n".join(lines)


def _csv(rows: Sequence[ScoredRow], scores: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([
        "row", "metric", "value", "ci_low", "ci_high", "n", "coverage",
        "difference", "difference_ci_low", "difference_ci_high", "separable", "scoring_hash", "protocol_hash",
    ])  # fmt: skip
    for row in rows:
        about = row.metrics
        hashes = [scoring_hash(about["protocol"]), about["protocol_hash"]]
        for score in scores:
            ends = about["intervals"].get(score, ["", ""])
            value = [about[score], *ends, about["num_clips"], about["coverage"]]
            writer.writerow([row.name, score, *value, *_difference_fields(row, rows[0], score), *hashes])
    return text.getvalue()


def _difference_fields(row: ScoredRow, first: ScoredRow, score: str) -> list[object]:
    found = _difference(row, first, score)
    if found is None:
        return ["", "", "", ""]
    return [found.value, found.low, found.high, "yes" if found.separable else "no"]

"""What a table shows, whatever it is written in: one structure for Markdown, LaTeX and HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.ablate.matrix.published import PAPER_COSTS, PAPER_METRICS
from experiments.ablate.plan.plan_file import PlannedTable
from experiments.ablate.results.result import Result
from experiments.runs.state import DONE
from experiments.scoring.metrics import METRICS, shown_metrics

# What the paper's Tables 3 to 8 were measured with; numbers of another scale or judge never stand beside them.
PAPER_SCALE, PAPER_JUDGE = "base", "audioldm"


@dataclass(frozen=True)
class Value:
    """A metric of a row.

    Attributes:
        text: rounded; `n/a` where it doesn't apply; the cell's state where it is missing.
        half_width: of its 95 % interval, rounded; empty where it has none.
        best: True for the best trained row's.
        state: the cell's.
    """

    text: str
    half_width: str
    best: bool
    state: str

    @property
    def full(self) -> str:
        """With half the width of its interval, as `2.50 ± 0.20`."""
        return f"{self.text} ± {self.half_width}" if self.half_width else self.text


@dataclass(frozen=True)
class Line:
    """A row of a table: its words (row, settings, seed where there are several, clips), then its metrics."""

    result: Result
    words: tuple[str, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True)
class ShownTable:
    """A table as it is shown.

    Attributes:
        title: its heading.
        scale: of all its rows.
        judge: whose scores it shows.
        words: headings of the columns of words.
        metrics: the metrics behind them, by name.
        lines: its rows, in the plan's order.
        published: the paper's metrics and costs that stand beside it, by name.
    """

    title: str
    scale: str
    judge: str
    words: tuple[str, ...]
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    published: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Whether the paper's values were measured at this scale and by this judge."""
        return self.scale == PAPER_SCALE and self.judge == PAPER_JUDGE

    @property
    def has_intervals(self) -> bool:
        """Whether any value has one."""
        return any(value.half_width for line in self.lines for value in line.values)

    @property
    def several_seeds(self) -> bool:
        """Whether its rows have more than one training seed."""
        return "seed" in self.words

    def gap(self, result: Result, metric: str) -> str:
        """Ours less the paper's value, signed; empty where there is none, or the two aren't comparable."""
        value, printed = result.value(metric) if metric in METRICS else None, result.cell.published.get(metric)
        if not self.comparable or value is None or not printed:
            return ""
        return f"{value - float(printed):+.{METRICS[metric].digits}f}"


def shown_table(results: Sequence[Result], table: PlannedTable, judge: str) -> ShownTable:
    """Return what a table shows of its results, which are at least one."""
    settings = list(results[0].cell.settings)
    several_seeds = len({result.cell.seed for result in results}) > 1
    metrics = table_metrics(results, table, judge)
    best = best_shown(results, judge)
    lines = []
    for result in results:
        cell = result.cell
        words = [cell.row, *(cell.settings[axis] for axis in settings)]
        words += [str(cell.seed)] if several_seeds else []
        words.append(str(result.state.metrics.get("num_clips", "")))
        lines.append(Line(result, tuple(words), tuple(_value(result, metric, best) for metric in metrics)))
    return ShownTable(
        title=table.title,
        scale=results[0].cell.scale,
        judge=judge,
        words=("row", *settings, *(("seed",) if several_seeds else ()), "clips"),
        metrics=metrics,
        lines=tuple(lines),
        published=published_columns(results),
    )


def table_metrics(results: Sequence[Result], table: PlannedTable, judge: str) -> tuple[str, ...]:
    """The metrics that a table shows: the judge's, its own columns, and GPU-hours where a run had a GPU."""
    hours = ("gpu_hours",) if any(result.value("gpu_hours") is not None for result in results) else ()
    return (*shown_metrics(judge), *table.columns, *hours)


def published_columns(results: Sequence[Result]) -> tuple[str, ...]:
    """The paper's metrics, and those costs that it prints for any of these rows (Table 4)."""
    return (*PAPER_METRICS, *(cost for cost in PAPER_COSTS if any(cost in r.cell.published for r in results)))


def best_shown(results: Sequence[Result], judge: str) -> dict[str, str]:
    """Return the best trained row's value per metric, as it is shown; what looks equal is equally good."""
    best = {}
    for name in shown_metrics(judge):
        better = METRICS[name].better
        trained = [(r.value(name), r.rounded(name)) for r in results if not r.cell.reference]
        values = [(value * better, shown) for value, shown in trained if value is not None and math.isfinite(value)]
        if better and len(values) > 1:
            best[name] = max(values)[1]
    return best


def is_best(result: Result, metric: str, best: dict[str, str]) -> bool:
    """Whether a trained row's value looks as good as the best one."""
    trained = not result.cell.reference and result.value(metric) is not None
    return trained and result.rounded(metric) == best.get(metric)


def once(results: Sequence[Result]) -> list[Result]:
    """The first of each row, where there are several seeds."""
    return list({result.cell.row: result for result in reversed(results)}.values())[::-1]


def heading(metric: str) -> str:
    """A metric's name with the direction that is better, as `fd_judge ↓`."""
    return f"{metric}{METRICS[metric].arrow()}"


def _value(result: Result, metric: str, best: dict[str, str]) -> Value:
    ends = result.interval(metric)
    half_width = f"{(ends[1] - ends[0]) / 2:.{METRICS[metric].digits}f}" if ends else ""
    state = DONE if result.value(metric) is not None else result.state.state
    return Value(result.rounded(metric), half_width, is_best(result, metric, best), state)

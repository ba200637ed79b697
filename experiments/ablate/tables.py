"""Tables of finished cells: CSV for machines, Markdown for readers, rich for the terminal.

Ours and the paper's values never stand in one table for readers: at another scale, on another corpus and by another
judge they aren't the same quantities. A missing number stays missing: it is shown as its state.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from experiments.ablate.planned import PlannedCell
from experiments.ablate.published import PAPER_COSTS, PAPER_METRICS
from experiments.ablate.status import DONE, STYLES, CellState

NOT_COMPARABLE = (
    "The paper's values were measured at another scale, on another corpus and by other judges: "
    "they are not comparable with the ones above; only the order of rows may be."
)


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: its digits, and which direction is better (-1 lower, 1 higher, 0 neither)."""

    digits: int
    better: int

    def arrow(self) -> str:
        """The direction as a sign."""
        return {-1: " ↓", 0: "", 1: " ↑"}[self.better]


METRICS = {
    "fd_judge": Metric(3, -1),
    "kl_judge": Metric(3, -1),
    "is_judge": Metric(3, 1),
    "text_judge": Metric(3, 1),
    "ntp_loss": Metric(4, -1),
    "train_seconds": Metric(0, 0),
}
# What a table shows beside these where its `columns` say so, as in Table 4.
EXTRA_METRICS = {
    "parameters": Metric(0, 0),
    "head_parameters": Metric(0, 0),
    "head_share": Metric(3, 0),
    "sample_seconds": Metric(1, 0),
}
ALL_METRICS = METRICS | EXTRA_METRICS
RECORDED = {"train_seconds": "train_seconds", "parameters": "num_parameters", "head_parameters": "num_head_parameters"}


@dataclass(frozen=True)
class Result:
    """A planned cell and what its run folder says."""

    cell: PlannedCell
    state: CellState

    def value(self, metric: str) -> float | None:
        """Return a metric's value; None where the cell isn't done, or the metric doesn't apply to it."""
        if self.state.state != DONE:
            return None
        run = self.state.run if self.cell.source == "model" else {}
        value: Any
        if metric == "head_share":
            value = run["num_head_parameters"] / run["num_parameters"] if run.get("num_parameters") else None
        elif metric == "sample_seconds":
            value = self.state.timings.get(metric) if run else None
        elif metric in RECORDED:
            value = run.get(RECORDED[metric])
        else:
            value = self.state.metrics.get(metric)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def shown(self, metric: str) -> str:
        """Return a metric as text: rounded, `n/a` where it doesn't apply, else the cell's state."""
        value = self.value(metric)
        if value is None:
            return "n/a" if self.state.state == DONE else self.state.state
        return f"{value:.{ALL_METRICS[metric].digits}f}"

    def notes(self) -> str:
        """Return the line below the table: why there is no number, and which row has the same run."""
        parts = []
        if self.state.state != DONE:
            lines = self.state.reason.splitlines()
            parts.append(": ".join((self.state.state, *dict.fromkeys((*lines[:1], *lines[-1:])))))
        if self.state.metrics.get("out_of_domain"):
            parts.append("out of domain: the judge was trained on another corpus")
        if self.cell.same_as:
            parts.append(f"the same run as {self.cell.same_as}")
        return "; ".join(parts)


def table_csv(results: Sequence[Result], columns: Sequence[str] = ()) -> str:
    """Return one table as CSV: `row`, settings, state, ours with full precision, then `published_*` as printed.

    A number that is missing is an empty field beside its state; one that doesn't apply is `n/a`. `columns` are shown
    beside the metrics that every table has.
    """
    metrics = (*METRICS, *columns)
    settings = list(results[0].cell.settings)
    published = _published(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "row",
            *settings,
            "state",
            "scale",
            "seed",
            "num_clips",
            *metrics,
            *(f"published_{name}" for name in published),
        ]
    )
    for result in results:
        cell, state = result.cell, result.state
        writer.writerow([
            cell.row,
            *(cell.settings[axis] for axis in settings),
            state.state,
            cell.scale,
            cell.seed,
            state.metrics.get("num_clips", ""),
            *(_csv_value(result, metric) for metric in metrics),
            *(cell.published.get(metric, "") for metric in published),
        ])  # fmt: skip
    return text.getvalue()


def table_markdown(title: str, results: Sequence[Result], columns: Sequence[str] = ()) -> str:
    """Return one table as Markdown: ours (best trained row in bold), notes, then the paper's values apart."""
    settings = list(results[0].cell.settings)
    several_seeds = len({result.cell.seed for result in results}) > 1
    best = best_shown(results)
    header = ["row", *settings, *(["seed"] if several_seeds else []), "clips"]
    metrics = (*METRICS, *columns)
    header += [f"{name}{ALL_METRICS[name].arrow()}" for name in metrics]
    lines = [f"# {title}", "", f"## Ours, scale `{results[0].cell.scale}`", "", *_head(header)]
    for result in results:
        cell = result.cell
        cells = [cell.row, *(cell.settings[axis] for axis in settings)]
        cells += [str(cell.seed)] if several_seeds else []
        cells.append(str(result.state.metrics.get("num_clips", "")))
        for metric in metrics:
            shown = result.shown(metric)
            cells.append(f"**{shown}**" if _is_best(result, metric, best) else shown)
        lines.append(_line(cells))
    lines += ["", *(f"- {result.cell.row}: {_escape(result.cell.description)}" for result in _once(results))]
    notes = [f"- {r.cell.row}{f' (seed {r.cell.seed})' if several_seeds else ''}: {_escape(r.notes())}"
             for r in results if r.notes()]  # fmt: skip
    lines += ["", "Notes:", "", *notes] if notes else []
    lines += ["", "## Published", "", NOT_COMPARABLE, "", *_head(["row", *(names := _published(results))])]
    for result in _once(results):
        if result.cell.published:
            lines.append(_line([result.cell.row, *(result.cell.published.get(m, "not given") for m in names)]))
    return "\n".join(lines) + "\n"


def table_rich(title: str, results: Sequence[Result], columns: Sequence[str] = ()) -> RichTable:
    """Return one table for the terminal: ours only, the best trained row in bold."""
    best = best_shown(results)
    axes = list(results[0].cell.settings)
    table = RichTable(title=f"{title} (ours, scale {results[0].cell.scale})", title_justify="left")
    for name in ("row", "seed", *axes):
        table.add_column(name.replace("_", " "), overflow="fold")
    metrics = (*METRICS, *columns)
    for name in metrics:
        table.add_column(f"{name}{ALL_METRICS[name].arrow()}", justify="right", overflow="fold")
    for result in results:
        values = []
        for metric_name in metrics:
            style = "" if result.state.state == DONE else STYLES[result.state.state]
            style = "bold" if _is_best(result, metric_name, best) else style
            values.append(Text(result.shown(metric_name), style=style))
        settings = (result.cell.settings[axis] for axis in axes)
        table.add_row(*map(Text, (result.cell.row, str(result.cell.seed), *settings)), *values)
    return table


def best_shown(results: Sequence[Result]) -> dict[str, str]:
    """Return the best trained row's value per metric, as it is shown; what looks equal is equally good."""
    best = {}
    for name, metric in METRICS.items():
        trained = [(r.value(name), r.shown(name)) for r in results if not r.cell.reference]
        values = [
            (value * metric.better, shown) for value, shown in trained if value is not None and math.isfinite(value)
        ]
        if metric.better and len(values) > 1:
            best[name] = max(values)[1]
    return best


def _is_best(result: Result, metric: str, best: dict[str, str]) -> bool:
    trained = not result.cell.reference and result.value(metric) is not None
    return trained and result.shown(metric) == best.get(metric)


def _csv_value(result: Result, metric: str) -> str:
    value = result.value(metric)
    if value is None:
        return "n/a" if result.state.state == DONE else ""
    return repr(value)


def _published(results: Sequence[Result]) -> list[str]:
    """The paper's metrics, and those costs that it prints for any of these rows (Table 4)."""
    return [*PAPER_METRICS, *(cost for cost in PAPER_COSTS if any(cost in r.cell.published for r in results))]


def _once(results: Sequence[Result]) -> list[Result]:
    """The first of each row, where there are several seeds."""
    return list({result.cell.row: result for result in reversed(results)}.values())[::-1]


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    """One line, and no character that ends a table's cell or starts HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

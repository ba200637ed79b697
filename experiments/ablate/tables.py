"""Tables of finished cells: CSV for machines, Markdown for readers, rich for the terminal.

Ours and the paper's values never stand in one table for readers: at another scale, on another corpus and by another
judge they aren't the same quantities. A missing number stays missing: it is shown as its state.
"""

import csv
import io
import math
import statistics
from collections.abc import Sequence

from rich.table import Table as RichTable
from rich.text import Text

from experiments.ablate.comparison import Comparer, Comparison
from experiments.ablate.metrics import METRICS, shown_metrics
from experiments.ablate.planned import PlannedTable
from experiments.ablate.published import PAPER_COSTS, PAPER_METRICS
from experiments.ablate.result import Result
from experiments.ablate.status import DONE, STYLES

NOT_COMPARABLE = (
    "The paper's values were measured at another scale, on another corpus and by other judges: "
    "they are not comparable with the ones above; only the order of rows may be."
)
BIASED = (
    "± is half of the 95 % interval over clips. Frechet distances and inception scores are biased at small numbers of "
    "clips, Frechet distances upwards: compare rows of equal numbers only."
)
DIFFERENCES = (
    "In brackets the 95 % interval of the mean difference, both rows resampled on the same clips. Not separable: it "
    "holds zero, or the sign changes between training seeds. Training seeds are not resampled: one seed alone says "
    "nothing of how another would end."
)


def table_csv(results: Sequence[Result], table: PlannedTable, judge: str) -> str:
    """Return one table as CSV: `row`, settings, state, ours with full precision and intervals, then `published_*`.

    A number that is missing is an empty field beside its state; one that doesn't apply is `n/a`.
    """
    metrics = (*shown_metrics(judge), *table.columns)
    with_interval = [name for name in metrics if METRICS[name].better]
    settings = list(results[0].cell.settings)
    published = _published(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([
        "row", *settings, "state", "scale", "judge", "seed", "num_clips", *metrics,
        *(f"{name}_{end}" for name in with_interval for end in ("ci_low", "ci_high")),
        "protocol_hash", *(f"published_{name}" for name in published),
    ])  # fmt: skip
    for result in results:
        cell, state = result.cell, result.state
        writer.writerow([
            cell.row, *(cell.settings[axis] for axis in settings), state.state, cell.scale, judge, cell.seed,
            state.metrics.get("num_clips", ""), *(_csv_value(result, metric) for metric in metrics),
            *(end for name in with_interval for end in result.interval(name) or ("", "")),
            cell.protocol_hash, *(cell.published.get(metric, "") for metric in published),
        ])  # fmt: skip
    return text.getvalue()


def differences_csv(comparisons: Sequence[Comparison]) -> str:
    """Return the rows' differences from the baseline as CSV, a line per row and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "baseline", "metric", "seeds", "difference", "ci_low", "ci_high", "separable"])
    for item in comparisons:
        ends = (repr(value) for value in (item.difference.value, item.difference.low, item.difference.high))
        seeds = " ".join(map(str, item.seeds))
        writer.writerow([item.row, item.other, item.metric, seeds, *ends, "yes" if item.separable else "no"])
    return text.getvalue()


def compare_rows(results: Sequence[Result], table: PlannedTable, judge: str) -> list[Comparison]:
    """Every trained row against the table's baseline, in every metric that has a better direction."""
    return [] if table.baseline is None else list(Comparer(results).against(table.baseline, shown_metrics(judge)))


def table_markdown(
    results: Sequence[Result], table: PlannedTable, judge: str, comparisons: Sequence[Comparison]
) -> str:
    """Return one table as Markdown: ours (best trained row in bold), differences, notes, the paper's values apart."""
    settings = list(results[0].cell.settings)
    several_seeds = len({result.cell.seed for result in results}) > 1
    best = best_shown(results, judge)
    header = ["row", *settings, *(["seed"] if several_seeds else []), "clips"]
    metrics = (*shown_metrics(judge), *table.columns)
    header += [f"{name}{METRICS[name].arrow()}" for name in metrics]
    lines = [f"# {table.title}", "", f"## Ours, scale `{results[0].cell.scale}`, judge `{judge}`", "", *_head(header)]
    for result in results:
        cell = result.cell
        cells = [cell.row, *(cell.settings[axis] for axis in settings)]
        cells += [str(cell.seed)] if several_seeds else []
        cells.append(str(result.state.metrics.get("num_clips", "")))
        for metric in metrics:
            shown = result.shown(metric)
            cells.append(f"**{shown}**" if _is_best(result, metric, best) else shown)
        lines.append(_line(cells))
    if any(result.interval(metric) for result in results for metric in metrics):
        lines += ["", BIASED]
    lines += ["", *(f"- {result.cell.row}: {_escape(result.cell.description)}" for result in _once(results))]
    lines += _over_seeds(results, metrics) if several_seeds else []
    lines += _differences(comparisons, judge)
    notes = [f"- {r.cell.row}{f' (seed {r.cell.seed})' if several_seeds else ''}: {_escape(r.notes())}"
             for r in results if r.notes()]  # fmt: skip
    lines += ["", "Notes:", "", *notes] if notes else []
    lines += ["", "## Published", "", NOT_COMPARABLE, "", *_head(["row", *(names := _published(results))])]
    for result in _once(results):
        if result.cell.published:
            lines.append(_line([result.cell.row, *(result.cell.published.get(m, "not given") for m in names)]))
    return "\n".join(lines) + "\n"


def _over_seeds(results: Sequence[Result], metrics: Sequence[str]) -> list[str]:
    """Mean and standard deviation over training seeds, and how many there are."""
    lines = ["", "## Over training seeds: mean, standard deviation (n - 1), n", "", *_head(["row", *metrics])]
    for row in dict.fromkeys(result.cell.row for result in results if not result.cell.reference):
        cells = [row]
        for metric in metrics:
            of_row = (result.value(metric) for result in results if result.cell.row == row)
            values = [value for value in of_row if value is not None]
            digits = METRICS[metric].digits
            mean = f"{statistics.fmean(values):.{digits}f}" if values else "no value"
            spread = f", {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{mean}{spread}" + (f", {len(values)}" if values else ""))
        lines.append(_line(cells))
    return lines


def _differences(comparisons: Sequence[Comparison], judge: str) -> list[str]:
    """The table of differences: nothing where there is none."""
    if not comparisons:
        return []
    found = {(item.row, item.metric): item for item in comparisons}
    metrics = [name for name in shown_metrics(judge) if any(metric == name for _, metric in found)]
    lines = ["", f"## Differences from row {comparisons[0].other}, on the same clips", "", *_head(["row", *metrics])]
    for row in dict.fromkeys(item.row for item in comparisons):
        lines.append(_line([row, *(_difference(found.get((row, metric))) for metric in metrics)]))
    return [*lines, "", DIFFERENCES]


def _difference(item: Comparison | None) -> str:
    if item is None:
        return ""
    digits, difference = METRICS[item.metric].digits, item.difference
    text = f"{difference.value:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    return text if item.separable else f"{text} not separable"


def table_rich(results: Sequence[Result], table: PlannedTable, judge: str) -> RichTable:
    """Return one table for the terminal: ours only, the best trained row in bold."""
    best = best_shown(results, judge)
    axes = list(results[0].cell.settings)
    title = f"{table.title} (ours, scale {results[0].cell.scale}, judge {judge})"
    shown = RichTable(title=title, title_justify="left")
    for name in ("row", "seed", *axes):
        shown.add_column(name.replace("_", " "), overflow="fold")
    metrics = (*shown_metrics(judge), *table.columns)
    for name in metrics:
        shown.add_column(f"{name.replace('_', ' ')}{METRICS[name].arrow()}", justify="right", overflow="fold")
    for result in results:
        values = []
        for metric_name in metrics:
            style = "" if result.state.state == DONE else STYLES[result.state.state]
            style = "bold" if _is_best(result, metric_name, best) else style
            values.append(Text(result.rounded(metric_name), style=style))
        settings = (result.cell.settings[axis] for axis in axes)
        shown.add_row(*map(Text, (result.cell.row, str(result.cell.seed), *settings)), *values)
    return shown


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


def _is_best(result: Result, metric: str, best: dict[str, str]) -> bool:
    trained = not result.cell.reference and result.value(metric) is not None
    return trained and result.rounded(metric) == best.get(metric)


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

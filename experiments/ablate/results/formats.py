"""Tables of finished cells: CSV for machines, Markdown for readers, rich for the terminal.

Ours and the paper's values are compared only where scale and judge are the paper's: else they aren't the same
quantities, and stand apart. A missing number stays missing: it is shown as its state.
"""

import csv
import io
import statistics
from collections.abc import Sequence

from rich.table import Table as RichTable
from rich.text import Text

from experiments.ablate.plan.plan_file import PlannedTable
from experiments.ablate.results.differences import Comparison, compare_with
from experiments.ablate.results.result import Result
from experiments.ablate.results.table import (
    ShownTable,
    best_shown,
    heading,
    is_best,
    once,
    published_columns,
    shown_table,
    table_metrics,
)
from experiments.runs.state import DONE, STYLES
from experiments.scoring.metrics import METRICS, shown_metrics

NOT_COMPARABLE = (
    "The paper's values were measured at another scale, on another corpus and by other judges: "
    "they are not comparable with the ones above; only the order of rows may be."
)
COMPARABLE = "In brackets: ours less the paper's value."
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
    metrics = table_metrics(results, table, judge)
    with_interval = [name for name in metrics if METRICS[name].better]
    settings = list(results[0].cell.settings)
    published = published_columns(results)
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
    return [] if table.baseline is None else list(compare_with(table.baseline, results, shown_metrics(judge)))


def table_markdown(
    results: Sequence[Result], table: PlannedTable, judge: str, comparisons: Sequence[Comparison]
) -> str:
    """Return one table as Markdown: ours (best trained row in bold), differences, notes, the paper's values apart."""
    shown = shown_table(results, table, judge)
    header = [*shown.words, *map(heading, shown.metrics)]
    lines = [f"# {shown.title}", "", f"## Ours, scale `{shown.scale}`, judge `{judge}`", "", *_head(header)]
    for line in shown.lines:
        lines.append(_line([*line.words, *(f"**{v.full}**" if v.best else v.full for v in line.values)]))
    if shown.has_intervals:
        lines += ["", BIASED]
    lines += ["", *(f"- {result.cell.row}: {_escape(result.cell.description)}" for result in once(results))]
    lines += _over_seeds(results, shown.metrics) if shown.several_seeds else []
    lines += _differences(comparisons, judge)
    notes = [f"- {r.cell.row}{f' (seed {r.cell.seed})' if shown.several_seeds else ''}: {_escape(r.notes())}"
             for r in results if r.notes()]  # fmt: skip
    lines += ["", "Notes:", "", *notes] if notes else []
    return "\n".join([*lines, *_beside_the_paper(shown)]) + "\n"


def _beside_the_paper(shown: ShownTable) -> list[str]:
    """The paper's values; with ours less the paper's where they are comparable."""
    lines = ["", "## Published", "", COMPARABLE if shown.comparable else NOT_COMPARABLE, ""]
    lines += _head(["row", *shown.published])
    several = shown.several_seeds and shown.comparable
    for result in [line.result for line in shown.lines] if several else once([line.result for line in shown.lines]):
        if not result.cell.published:
            continue
        cells = [f"{result.cell.row} (seed {result.cell.seed})" if several else result.cell.row]
        for metric in shown.published:
            gap = shown.gap(result, metric)
            cells.append(result.cell.published.get(metric, "not given") + (f" ({gap})" if gap else ""))
        lines.append(_line(cells))
    return lines


def _over_seeds(results: Sequence[Result], metrics: Sequence[str]) -> list[str]:
    """Mean and standard deviation over training seeds, and how many there are."""
    lines = ["", "## Over training seeds: mean, standard deviation (n - 1), n", "", *_head(["row", *metrics])]
    rows: dict[str, list[Result]] = {}
    for result in results:
        if not result.cell.reference:
            rows.setdefault(result.cell.row, []).append(result)
    for row, of_row in rows.items():
        cells = [row]
        for metric in metrics:
            values = [value for result in of_row if (value := result.value(metric)) is not None]
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
        items = (found.get((row, metric)) for metric in metrics)
        lines.append(_line([row, *(difference_text(item) if item else "" for item in items)]))
    return [*lines, "", DIFFERENCES]


def difference_text(item: Comparison) -> str:
    """Return a difference with its interval, as `+1.000 [+0.810, +1.190]`, and whether it isn't separable.

    Rows with the same samples, or the same training where that is all that counts, differ by exactly nothing.
    """
    digits, difference = METRICS[item.metric].digits, item.difference
    if difference.value == difference.low == difference.high == 0:
        return "equal"
    return difference.shown(digits, item.separable)


def table_rich(results: Sequence[Result], table: PlannedTable, judge: str) -> RichTable:
    """Return one table for the terminal: ours only, the best trained row in bold."""
    best = best_shown(results, judge)
    axes = list(results[0].cell.settings)
    title = f"{table.title} (ours, scale {results[0].cell.scale}, judge {judge})"
    shown = RichTable(title=title, title_justify="left")
    for name in ("row", "seed", *axes):
        shown.add_column(name.replace("_", " "), overflow="fold")
    metrics = table_metrics(results, table, judge)
    for name in metrics:
        shown.add_column(f"{name.replace('_', ' ')}{METRICS[name].arrow()}", justify="right", overflow="fold")
    for result in results:
        values = []
        for metric_name in metrics:
            style = "" if result.state.state == DONE else STYLES[result.state.state]
            style = "bold" if is_best(result, metric_name, best) else style
            values.append(Text(result.rounded(metric_name), style=style))
        settings = (result.cell.settings[axis] for axis in axes)
        shown.add_row(*map(Text, (result.cell.row, str(result.cell.seed), *settings)), *values)
    return shown


def _csv_value(result: Result, metric: str) -> str:
    value = result.value(metric)
    if value is None:
        return "n/a" if result.state.state == DONE else ""
    return repr(value)


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    """One line, and no character that ends a table's cell or starts HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

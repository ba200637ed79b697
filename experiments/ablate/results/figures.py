"""Plots of finished cells: quality against seconds (Figure 4), sweeps (Figures 6a and 6b), losses, mask schedules.

matplotlib is imported where something is drawn, so that looking at a table doesn't wait for it.
"""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.ablate.matrix.schema import ScheduleCurve, row_label
from experiments.ablate.plan.plan_file import Plan
from experiments.ablate.results.result import Result
from experiments.scoring.metrics import JUDGED, METRICS
from mntp.io.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECONDS = "figure4"
MAX_POINTS = 200  # of a curve
COLUMNS = 2  # of panels, that a phone can show
LEGEND_LINE = 0.17  # inches
MARKERS = "osD^v"  # a shape for each table of a scatter
GREY = "#808080"  # readable on white and on black


@dataclass(frozen=True)
class Point:
    """A row's score in a plot.

    Attributes:
        table: the row's table.
        row: its id.
        x: seconds of sampling a clip, or the value that is swept.
        metric: the score's name.
        value: the score.
        low: lower end of its 95 % interval over clips, or None.
        high: upper end.
        num_clips: that it rests on, or None.
        seed: of the training.
    """

    table: str
    row: str
    x: float
    metric: str
    value: float
    low: float | None
    high: float | None
    num_clips: int | None
    seed: int


def write_figures(folder: Path, plan: Plan, tables: Mapping[str, Sequence[Result]]) -> None:
    """Write each figure that has points as PNG, with a CSV of what it shows; an older one without points goes.

    Figures 6a and 6b rest on their tables' own CSV files.
    """
    for name, points in score_points(plan, tables).items():
        path = folder / f"{name}.png"
        if not points:
            path.unlink(missing_ok=True)
            if name == SECONDS:
                path.with_suffix(".csv").unlink(missing_ok=True)
            continue
        with atomic_write(path, "wb") as file:
            file.write(render(score_figure(points, name), "png"))
        if name == SECONDS:
            with atomic_write(path.with_suffix(".csv")) as file:
                file.write(points_csv(points))


def score_points(plan: Plan, tables: Mapping[str, Sequence[Result]]) -> dict[str, list[Point]]:
    """Points of each figure: quality against seconds, and the tables whose rows are the values of a sweep."""
    timed = [results for name, results in tables.items() if "sample_seconds" in plan.tables[name].columns]
    return {SECONDS: _seconds_points(timed, plan.judge), **_sweeps(tables, plan.judge)}


def _sweeps(tables: Mapping[str, Sequence[Result]], judge: str) -> dict[str, list[Point]]:
    return {
        name: [
            point
            for result in results
            if not result.cell.reference
            for point in _points(result, float(result.cell.row), judge)
        ]
        for name, results in tables.items()
        if name.startswith("figure") and all(_is_number(r.cell.row) for r in results if not r.cell.reference)
    }


def _seconds_points(tables: Sequence[Sequence[Result]], judge: str) -> list[Point]:
    """Points of the trained rows, each scoring once, at its seconds a clip."""
    points, seen = list[Point](), set[tuple[str, str]]()
    for results in tables:
        for result in results:
            cell, taken = result.cell, result.value("sample_seconds")
            key = (cell.run_dir, cell.protocol_hash)
            clips = result.state.metrics.get("num_clips")
            if cell.reference or taken is None or not clips or key in seen:
                continue
            seen.add(key)
            points += _points(result, taken / clips, judge)
    return points


def points_csv(points: Sequence[Point]) -> str:
    """Return the points as CSV, with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "row", "seed", "seconds_per_clip", "metric", "value", "ci_low", "ci_high", "n"])
    for point in points:
        numbers = ["" if value is None else repr(value) for value in (point.value, point.low, point.high)]
        words = (point.table, point.row, point.seed, repr(point.x), point.metric)
        writer.writerow([*words, *numbers, point.num_clips or ""])
    return text.getvalue()


def score_figure(points: Sequence[Point], name: str) -> "Figure":
    """Draw a panel for each metric: scores with their 95 % intervals over what is swept, or over seconds."""
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(point.metric for point in points))
    rows = -(-len(metrics) // COLUMNS)
    figure = Figure(figsize=(3.8 * COLUMNS, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    for panel, metric in zip(panels, metrics, strict=False):
        shown = sorted((point for point in points if point.metric == metric), key=lambda point: point.x)
        if name == SECONDS:
            _draw_apart(panel, shown)
        else:
            for seed in dict.fromkeys(point.seed for point in shown):
                _draw(panel, [point for point in shown if point.seed == seed], fmt="o-")
        panel.set_title(f"{metric.replace('_', ' ')}{METRICS[metric].arrow()}", fontsize=10)
        panel.grid(alpha=0.3)
    label = {SECONDS: "seconds of sampling a clip", "figure6a": "scale of guidance", "figure6b": "temperature"}
    figure.supxlabel(label.get(name, name), fontsize=10)
    if name == SECONDS:
        handles, names = panels[0].get_legend_handles_labels()
        figure.set_figheight(2.7 * rows + LEGEND_LINE * -(-len(names) // COLUMNS))
        figure.legend(handles, names, loc="outside upper center", ncols=COLUMNS, fontsize=7, frameon=False)
    return figure


def _draw_apart(panel: "Axes", points: Sequence[Point]) -> None:
    """Each row in a colour and a shape of its own, tables by shape, named in the figure's legend."""
    for shape, table in zip(itertools.cycle(MARKERS), dict.fromkeys(point.table for point in points), strict=False):
        rows = dict.fromkeys(point.row for point in points if point.table == table)
        for number, row in enumerate(sorted(rows)):
            chosen = [point for point in points if (point.table, point.row) == (table, row)]
            _draw(panel, chosen, fmt=shape, color=f"C{number % 10}", label=row_label(table, row))


def _draw(panel: "Axes", points: Sequence[Point], **style: Any) -> None:
    below = [point.value - (point.value if point.low is None else point.low) for point in points]
    above = [(point.value if point.high is None else point.high) - point.value for point in points]
    x, y = [point.x for point in points], [point.value for point in points]
    panel.errorbar(x, y, yerr=[below, above], markersize=4, linewidth=1, capsize=2, **style)


def loss_curves(results: Sequence[Result], most: int) -> list[tuple[str, list[int], list[float]]]:
    """Training losses of a table's runs: (label, steps, losses), each run once.

    Args:
        results: of one table.
        most: runs that are read; the others are left out.
    """
    curves, seen = list[tuple[str, list[int], list[float]]](), set[str]()
    for result in results:
        cell = result.cell
        if cell.source != "model" or cell.run_dir in seen or len(curves) == most:
            continue
        seen.add(cell.run_dir)
        points = list(_losses(Path(cell.run_dir) / "metrics.jsonl"))
        if points:
            curves.append((cell.label, *_thinned(points)))
    return curves


def loss_figure(curves: Sequence[tuple[str, list[int], list[float]]]) -> "Figure":
    """Draw training losses over steps, on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    panel = figure.subplots()
    for index, (label, steps, losses) in enumerate(curves):
        style = ("-", "--", ":")[index // 10 % 3] if len(steps) > 1 else "."
        panel.plot(steps, losses, style, linewidth=1.2, color=f"C{index % 10}", label=label)
    if all(loss > 0 for _, _, losses in curves for loss in losses):
        panel.set_yscale("log")
    panel.set(xlabel="step", ylabel="training loss")
    panel.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def law_figure(laws: Mapping[str, ScheduleCurve]) -> "Figure":
    """Draw the densities of mask schedules, a stem of its probability for each atom."""
    from matplotlib.figure import Figure

    columns = min(4, len(laws))
    rows = -(-len(laws) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    top = max(1.0, *(max(law.density) for law in laws.values()))
    for panel, (name, law) in zip(panels, laws.items(), strict=False):
        edges = [index / len(law.density) for index in range(len(law.density) + 1)]
        panel.stairs(law.density, edges, fill=True, alpha=0.4)
        panel.axvline(law.mean, color=GREY, linestyle="--", linewidth=1)
        for ratio, mass in law.atoms:
            panel.vlines(ratio, 0, mass * top, color="C3", linewidth=2)
        panel.set_title(f"{name}: mean {law.mean:.2f}", fontsize=9)
        panel.set(xlim=(0, 1), ylim=(0, 1.1 * top))
    for panel in panels[len(laws) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(laws) - columns) : len(laws)]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
    figure.supxlabel("mask ratio", fontsize=9)
    return figure


def render(figure: "Figure", kind: str) -> bytes:
    """Return a figure as PNG, or as SVG with a clear ground and grey ink, for light and dark pages."""
    import matplotlib

    if kind == "svg":
        _make_grey(figure)
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mntp"}):  # the same picture is the same file
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        figure.savefig(content, format=kind, dpi=150, transparent=kind == "svg", metadata=metadata)
    return content.getvalue()


def _make_grey(figure: "Figure") -> None:
    from matplotlib.spines import Spine
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_color(GREY)
    for spine in figure.findobj(Spine):
        spine.set_edgecolor(GREY)
    for panel in figure.axes:
        panel.tick_params(which="both", color=GREY, labelcolor=GREY)


def _points(result: Result, x: float, judge: str) -> Iterator[Point]:
    for metric in JUDGED[judge]:
        value, ends = result.value(metric), result.interval(metric)
        if value is not None:
            low, high = ends or (None, None)
            cell = result.cell
            yield Point(cell.table, cell.row, x, metric, value, low, high, result.num_clips(metric), cell.seed)


def _losses(path: Path) -> Iterator[tuple[int, float]]:
    """Steps and losses of a `metrics.jsonl`; a line that is cut short, or whose loss isn't finite, is left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            loss = line.get("train/loss") if isinstance(line, dict) else None
            if isinstance(loss, int | float):
                yield int(line["step"]), float(loss)


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """At most 200 points: means of neighbours, at their last step."""
    size = -(-len(points) // MAX_POINTS)
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    return [group[-1][0] for group in groups], [sum(loss for _, loss in group) / len(group) for group in groups]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

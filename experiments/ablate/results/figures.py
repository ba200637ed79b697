"""Plots of finished cells: quality against seconds (Figure 4), sweeps (Figures 6a and 6b), losses, mask schedules.

matplotlib is imported where something is drawn, so that looking at a table doesn't wait for it.
"""

import io
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.ablate.matrix.schedules import schedule_curve
from experiments.ablate.matrix.schema import ScheduleCurve, row_label
from experiments.ablate.plan.plan_file import Plan
from experiments.ablate.results.table import CELL, Result, tables_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECONDS = "figure4"
MAX_POINTS = 200  # of a curve
COLUMNS = 2  # of panels, that a phone can show
LEGEND_LINE = 0.17  # inches
MARKERS = "osD^v"  # a shape for each table of a scatter
GREY = "#808080"  # readable on white and on black
LABELS = {SECONDS: "seconds of sampling a clip", "figure6a": "scale of guidance", "figure6b": "temperature"}


def score_points(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The judge's scores that each figure shows, at their places `x`.

    Args:
        frame: all results, as in `results_frame`.

    Returns:
        `figure4`: trained rows of the tables that show seconds of sampling, each scoring once, at its seconds a clip.
        Then the tables whose name starts with `figure`, and whose trained rows are the values of a sweep.
    """
    if frame.empty:
        return {}
    points = {SECONDS: _over_seconds(frame)}
    trained = frame[~frame.reference]
    for name, table in tables_of(trained[trained.table.str.startswith("figure")]).items():
        swept = table.assign(x=pd.to_numeric(table.row, errors="coerce"))
        if swept.x.notna().all():
            points[name] = _scores(swept)
    return points


def _over_seconds(frame: pd.DataFrame) -> pd.DataFrame:
    timed = frame[(frame.metric == "sample_seconds") & (frame.shown > 0) & frame.value.notna() & ~frame.reference]
    timed = timed[timed.num_clips.astype(bool)].drop_duplicates(["run_dir", "protocol_hash"])
    places = timed[CELL].assign(x=timed.value / timed.num_clips)
    return _scores(frame).merge(places, on=CELL)


def _scores(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.judged & ~frame.exact.isin(["", "n/a"])]


def points_csv(points: pd.DataFrame) -> str:
    """Return the points of `figure4` as CSV, with full precision."""
    columns = {
        "table": "table", "row": "row", "seed": "seed", "x": "seconds_per_clip", "metric": "metric", "exact": "value",
        "ci_low": "ci_low", "ci_high": "ci_high", "n": "n",
    }  # fmt: skip
    return points[[*columns]].rename(columns=columns).to_csv(index=False, lineterminator="\n")


def score_figure(points: pd.DataFrame, name: str) -> "Figure":
    """Draw a panel for each metric: scores with their 95 % intervals over what is swept, or over seconds."""
    from matplotlib.figure import Figure

    metrics = list(points.groupby("metric", sort=False))
    rows = -(-len(metrics) // COLUMNS)
    figure = Figure(figsize=(3.8 * COLUMNS, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    for panel, (_, of_metric) in zip(panels, metrics, strict=False):
        shown = of_metric.sort_values("x", kind="stable")
        if name == SECONDS:
            _draw_rows(panel, shown)
        else:
            for _, of_seed in shown.groupby("seed", sort=False):
                _draw(panel, of_seed, fmt="o-")
        panel.set_title(of_metric.heading.iloc[0].replace("_", " "), fontsize=10)
        panel.grid(alpha=0.3)
    figure.supxlabel(LABELS.get(name, name), fontsize=10)
    if name == SECONDS:
        handles, names = panels[0].get_legend_handles_labels()
        figure.set_figheight(2.7 * rows + LEGEND_LINE * -(-len(names) // COLUMNS))
        figure.legend(handles, names, loc="outside upper center", ncols=COLUMNS, fontsize=7, frameon=False)
    return figure


def _draw_rows(panel: "Axes", points: pd.DataFrame) -> None:
    """Each row in a colour and a shape of its own, tables by shape, named in the figure's legend."""
    for shape, (table, rows) in zip(itertools.cycle(MARKERS), points.groupby("table", sort=False), strict=False):
        for number, (row, chosen) in enumerate(rows.groupby("row")):
            _draw(panel, chosen, fmt=shape, color=f"C{number % 10}", label=row_label(table, row))


def _draw(panel: "Axes", points: pd.DataFrame, **style: Any) -> None:
    ends = points[["value", "ci_low", "ci_high"]].astype(float)
    below, above = (ends.value - ends.ci_low).fillna(0), (ends.ci_high - ends.value).fillna(0)
    panel.errorbar(points.x, ends.value, yerr=[below, above], markersize=4, linewidth=1, capsize=2, **style)


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


def schedule_curves(plan: Plan, used: Collection[str]) -> tuple[dict[str, ScheduleCurve], dict[str, str]]:
    """Compute the mask ratio schedules of a plan that are used; imports torch if there are any.

    Returns:
        The curves by name; and why others can't be drawn, such as those of a package that isn't imported here.
    """
    curves: dict[str, ScheduleCurve] = {}
    not_drawn: dict[str, str] = {}
    for name in plan.schedules:
        if name in used:
            try:
                curves[name] = schedule_curve(plan.schedules[name], plan.schedules)
            except ValueError as error:
                not_drawn[name] = str(error)
    return curves, not_drawn


def schedule_figure(curves: Mapping[str, ScheduleCurve]) -> "Figure":
    """Draw mask ratio schedules, as in Figure 5: the density of each, its mean, a stem for each atom.

    A stem as tall as the mean's line has probability 1.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    top = max(1.0, *(max(curve.density) for curve in curves.values()))
    for panel, (name, curve) in zip(panels, curves.items(), strict=False):
        _draw_schedule(panel, curve, top)
        panel.set(xlim=(0, 1), ylim=(0, 1.35 * top))  # the legend stands above the curves
        panel.set_title(name, fontweight="bold", loc="left")
        panel.set_title(curve.formula, fontsize=8, loc="right")
        panel.legend(loc="upper left", fontsize=8, frameon=False, handlelength=1.2)
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(curves) - columns) : len(curves)]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
    figure.supxlabel("mask ratio")
    figure.supylabel("density")
    return figure


def _draw_schedule(panel: "Axes", curve: ScheduleCurve, top: float) -> None:
    edges = [index / len(curve.density) for index in range(len(curve.density) + 1)]
    panel.stairs(curve.density, edges, fill=True, alpha=0.25, color="C0")
    panel.stairs(curve.density, edges, color="C0", baseline=None)
    label = f"mean {curve.mean:.2f}: {1 - curve.mean:.0%} of AudioNTP's tokens"
    panel.vlines(curve.mean, 0, top, color=GREY, linestyle="--", linewidth=1, label=label)
    for ratio, mass in curve.atoms:
        panel.vlines(ratio, 0, mass * top, color="C3", linewidth=2, label=f"P(r = {ratio:g}) = {mass:.2g}")
        panel.plot(ratio, mass * top, "o", color="C3", markersize=4, clip_on=False)


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

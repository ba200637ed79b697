"""`results/report.html`: what all finished cells say, in one offline file. Reads files only.

torch is imported only where mask ratio schedules are drawn.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.ablate.plan.plan_file import Plan
from experiments.ablate.report.audio import data_uri, heard_prompts
from experiments.ablate.report.provenance import origins_of, protocols_of, runs_of
from experiments.ablate.results.figures import (
    SECONDS,
    loss_curves,
    loss_figure,
    render,
    schedule_curves,
    schedule_figure,
    score_figure,
    score_points,
)
from experiments.ablate.results.gather import Gathered, gather_results
from experiments.ablate.results.markdown import BIASED, COMPARABLE, DIFFERENCES, NOT_COMPARABLE
from experiments.ablate.results.table import Result, differences_of, has_intervals, lines_of, tables_of
from experiments.ablate.show.plan_table import brief
from experiments.runs.state import DONE, NOT_RUN
from mntp.io.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"
MAX_CURVES = 24
SECONDS_TITLE = "Quality against seconds of sampling, as in Figure 4"
TEXTS = {"biased": BIASED, "differences": DIFFERENCES, "comparable": COMPARABLE, "apart": NOT_COMPARABLE}

Line = tuple[Any, list[Any]]


@dataclass(frozen=True)
class _Section:
    """A table of the page.

    Attributes:
        name: as in `table3`.
        lines: a cell and its metrics for each line, as `lines_of` gives them.
        has_intervals: whether any value has one.
        paper: a cell and the paper's values for each line that has some.
        differences: from the baseline, a line for each row, a column for each metric by its heading.
        baseline: the row that they are taken from; empty if none is.
        curves: data URI of the training losses; empty if there are none.
        num_curves: how many runs have one.
        rows: the first cell of each row.
    """

    name: str
    lines: list[Line]
    has_intervals: bool
    paper: list[Line]
    differences: pd.DataFrame
    baseline: str
    curves: str
    num_curves: int
    rows: list[Result]


def write_report(folder: Path, prompts: int, max_mb: float) -> Path:
    """Gather the tables and write `report.html` beside them.

    Args:
        folder: where `plan.json` lies.
        prompts: test clips that can be heard.
        max_mb: what sounds and their spectrograms may weigh.

    Returns:
        The file's path.

    Raises:
        FileNotFoundError: nothing was planned there.
        ValueError: the plan can't be read, rows were scored in different ways, or a number is negative.
    """
    if prompts < 0 or max_mb < 0:
        raise ValueError(f"got prompts={prompts} and max_mb={max_mb}; neither can be negative")
    path = folder / "report.html"
    page = report_html(gather_results(folder), prompts, int(max_mb * 1e6))
    with atomic_write(path) as file:
        file.write(f"{page}\n")
    return path


def report_html(gathered: Gathered, prompts: int, max_bytes: int) -> str:
    """Return the page: everything that it shows is inside it, everything that it quotes is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["brief"] = brief
    heard, left_out = heard_prompts(gathered.plan, gathered.results, prompts, max_bytes)
    return environment.get_template("report.html.jinja").render(
        plan=gathered.plan,
        sections=[_section(name, table, gathered.results) for name, table in tables_of(gathered.frame).items()],
        figures=list(_figures(gathered.plan, gathered.frame)),
        prompts=heard,
        left_out=left_out,
        texts=TEXTS,
        DONE=DONE,
        **_schedules(gathered),
        **_states(gathered.results),
        origins=origins_of(gathered.results),
        protocols=protocols_of(gathered.plan, gathered.results),
    )


def _schedules(gathered: Gathered) -> dict[str, Any]:
    used = {result.cell.settings.get("schedule", "") for result in gathered.results}
    curves, not_drawn = schedule_curves(gathered.plan, used)
    picture = _svg(schedule_figure(curves)) if curves else ""
    return {"schedules": curves, "schedules_picture": picture, "schedules_not_drawn": not_drawn}


def _states(results: list[Result]) -> dict[str, Any]:
    """How many of the cells that were asked for are in which state, and those that aren't finished."""
    asked = [result for result in results if result.cell.selected and not result.cell.same_as]
    return {
        "counts": Counter(result.state.state for result in asked),
        "failures": [result for result in asked if result.state.state not in (DONE, NOT_RUN)],
        "waiting": [result for result in asked if result.state.state == NOT_RUN],
        "runs": runs_of(asked),
    }


def _section(name: str, table: pd.DataFrame, results: list[Result]) -> _Section:
    results = [result for result in results if result.cell.table == name]
    differences = differences_of(table)
    curves = loss_curves(results, MAX_CURVES)
    paper = [(cell, values) for cell, values in lines_of(table, "printed") if any(item.published for item in values)]
    return _Section(
        name=name,
        lines=list(lines_of(table)),
        has_intervals=has_intervals(table),
        paper=paper,
        differences=differences.rename(columns=dict(zip(table.metric, table.heading, strict=True))),
        baseline=table.baseline.dropna().iloc[0] if len(differences) else "",
        curves=_svg(loss_figure(curves)) if curves else "",
        num_curves=len(curves),
        rows=list({result.cell.row: result for result in reversed(results)}.values())[::-1],
    )


def _figures(plan: Plan, frame: pd.DataFrame) -> Iterable[tuple[str, str, list[str]]]:
    """Title, data URI and files of each figure that has points."""
    for name, points in score_points(frame).items():
        if len(points):
            title = SECONDS_TITLE if name == SECONDS else plan.tables[name].title
            yield title, _svg(score_figure(points, name)), [f"{name}.png", f"{name}.csv"]


def _svg(figure: Any) -> str:
    return data_uri(render(figure, "svg"), "image/svg+xml")

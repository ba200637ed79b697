"""`results/report.html`: what all finished cells say, in one offline file. Reads files only; needs no torch."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.ablate.plan.plan_file import Plan, read_plan
from experiments.ablate.report.audio import data_uri, heard_prompts
from experiments.ablate.results.differences import Comparison
from experiments.ablate.results.figures import (
    SECONDS,
    law_figure,
    loss_curves,
    loss_figure,
    render,
    score_figure,
    score_points,
)
from experiments.ablate.results.formats import (
    BIASED,
    COMPARABLE,
    DIFFERENCES,
    NOT_COMPARABLE,
    compare_rows,
    difference_text,
)
from experiments.ablate.results.gather import gather_results
from experiments.ablate.results.result import Result
from experiments.ablate.results.table import ShownTable, heading, once, shown_table
from experiments.ablate.show.plan_table import brief
from experiments.ablate.slurm.array import ATTEMPT
from experiments.runs.state import DONE, FAILED, NOT_RUN, seconds
from mntp.io.files import atomic_write
from mntp.io.json_lines import read_json
from mntp.io.nested import flatten

TEMPLATES = Path(__file__).parent / "templates"
MAX_CURVES = 24
SECONDS_TITLE = "Quality against seconds of sampling, as in Figure 4"


@dataclass(frozen=True)
class _Section:
    """A table of the page.

    Attributes:
        name: as in `table3`.
        shown: the table.
        compared: metrics whose differences from the baseline are known.
        differences: (row, text per compared metric).
        baseline: the row that they are taken from.
        curves: data URI of the training losses; empty if there are none.
        num_curves: how many runs have one.
        changes: (first of each row, what differs from the base config).
    """

    name: str
    shown: ShownTable
    compared: tuple[str, ...]
    differences: list[tuple[str, list[str]]]
    baseline: str
    curves: str
    num_curves: int
    changes: list[tuple[Result, list[tuple[str, str]]]]


@dataclass(frozen=True)
class _Run:
    """Where a cell ran and how long: `taken` are the times of its phases, `job` is id, restarts and nodes, if any."""

    result: Result
    taken: list[str]
    job: tuple[str, ...]


@dataclass(frozen=True)
class _Origin:
    """Where results come from: one commit, one set of versions, and the cells that share them."""

    facts: dict[str, str]
    labels: list[str]


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
    plan, tables = read_plan(folder), gather_results(folder)
    path = folder / "report.html"
    with atomic_write(path) as file:
        file.write(report_html(plan, tables, prompts, int(max_mb * 1e6)))
        file.write("\n")
    return path


def report_html(plan: Plan, tables: Mapping[str, Sequence[Result]], prompts: int, max_bytes: int) -> str:
    """Return the page: everything that it shows is inside it, everything that it quotes is escaped."""
    results = [result for of_table in tables.values() for result in of_table]
    asked = [result for result in results if result.cell.selected and not result.cell.same_as]
    heard, left_out = heard_prompts(plan, results, prompts, max_bytes)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["heading"] = heading
    used = {result.cell.settings.get("schedule") for result in results}
    laws = {name: law for name, law in plan.laws.items() if name in used}
    return environment.get_template("report.html.jinja").render(
        plan=plan,
        counts=Counter(result.state.state for result in asked),
        sections=[_section(name, of_table, plan) for name, of_table in tables.items()],
        figures=list(_figures(plan, tables)),
        laws=laws,
        law_picture=_svg(law_figure(laws)) if laws else "",
        prompts=heard,
        left_out=left_out,
        failures=[result for result in asked if result.state.state not in (DONE, NOT_RUN)],
        waiting=[result for result in asked if result.state.state == NOT_RUN],
        runs=[run for run in map(_run, asked) if run.result.state.run or run.job[0]],
        origins=_origins(results),
        protocols=[(key, _as_text(rules)) for key, rules in plan.protocols.items() if key in _scored(results)],
        texts={"biased": BIASED, "differences": DIFFERENCES, "comparable": COMPARABLE, "apart": NOT_COMPARABLE},
        DONE=DONE,
        FAILED=FAILED,
    )


def _section(name: str, results: Sequence[Result], plan: Plan) -> _Section:
    table = plan.tables[name]
    shown = shown_table(results, table, plan.judge)
    comparisons = compare_rows(results, table, plan.judge)
    compared = tuple(metric for metric in shown.metrics if any(item.metric == metric for item in comparisons))
    curves = loss_curves(results, MAX_CURVES)
    return _Section(
        name=name,
        shown=shown,
        compared=compared,
        differences=_differences(comparisons, compared),
        baseline=table.baseline or "",
        curves=_svg(loss_figure(curves)) if curves else "",
        num_curves=len(curves),
        changes=[
            (result, [(key, brief(value)) for key, value in result.cell.differences.items()])
            for result in once(results)
        ],
    )


def _differences(comparisons: Sequence[Comparison], metrics: Sequence[str]) -> list[tuple[str, list[str]]]:
    rows: dict[str, dict[str, str]] = {}
    for item in comparisons:
        rows.setdefault(item.row, {})[item.metric] = difference_text(item)
    return [(row, [texts.get(metric, "") for metric in metrics]) for row, texts in rows.items()]


def _figures(plan: Plan, tables: Mapping[str, Sequence[Result]]) -> Iterable[tuple[str, str, list[str]]]:
    """Title, data URI and files of each figure that has points."""
    for name, points in score_points(plan, tables).items():
        if points:
            title = SECONDS_TITLE if name == SECONDS else plan.tables[name].title
            yield title, _svg(score_figure(points, name)), [f"{name}.png", f"{name}.csv"]


def _svg(figure: Any) -> str:
    return data_uri(render(figure, "svg"), "image/svg+xml")


def _run(result: Result) -> _Run:
    try:
        attempt = read_json(Path(result.cell.run_dir) / ATTEMPT)
    except ValueError:  # damaged: what the cell itself left is shown without it
        attempt = {}
    job = tuple(str(attempt.get(key, "")) for key in ("job", "restarts", "nodes"))
    return _Run(result, [seconds(value) for value in _times(result)], job)


def _times(result: Result) -> tuple[float | None, ...]:
    run, timings = result.state.run, result.state.timings
    trained = run.get("train_seconds") if result.cell.source == "model" else None
    return trained, timings.get("sample_seconds"), timings.get("score_seconds")


def _origins(results: Sequence[Result]) -> list[_Origin]:
    """Who made the results: cells grouped by commit, uncommitted changes, versions and hosts."""
    groups: dict[str, _Origin] = {}
    for result in results:
        parts = {"trained": result.state.run, "scored": result.state.timings}
        if result.cell.source != "model":
            del parts["trained"]
        facts: dict[str, str] = {}
        for part, record in parts.items():
            if record.get("commit") or record.get("host"):
                facts |= {f"{part}: {key}": text for key, text in _facts(record).items()}
        if facts:
            origin = groups.setdefault(json.dumps(facts), _Origin(facts, []))
            origin.labels.append(result.cell.label)
    return list(groups.values())


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    dirty = " with uncommitted changes" if record.get("dirty") else ""
    hosts = record.get("hosts") or record.get("host") or "unknown"
    versions = record.get("versions") or {}
    return {
        "commit": f"{record.get('commit') or 'unknown'}{dirty}",
        "host": ", ".join(hosts) if isinstance(hosts, list) else str(hosts),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "unknown",
    }


def _scored(results: Sequence[Result]) -> set[str]:
    return {result.cell.protocol_hash for result in results if result.state.state == DONE}


def _as_text(rules: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Dotted keys with their values as text."""
    return [(key, str(value)) for key, value in flatten(rules).items()]

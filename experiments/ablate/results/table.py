"""The results of a plan as one pandas DataFrame: a row for each cell and metric, with all that a format shows of it.

CSV, Markdown, LaTeX, terminal and HTML are functions of this data frame: nothing is measured, rounded, compared or
chosen anywhere else. A missing number stays missing: its text is the cell's state.
"""

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.ablate.matrix.published import PAPER_COSTS, PAPER_METRICS
from experiments.ablate.plan.plan_file import Plan, PlannedCell
from experiments.ablate.results.differences import compare_with
from experiments.runs.state import DONE, CellState
from experiments.scoring.metrics import HELD_OUT_BEFORE, JUDGED, METRICS, UNDECLARED, Metric, shown_metrics

# What the paper's Tables 3 to 8 were measured with; numbers of another scale or judge never stand beside them.
PAPER_SCALE, PAPER_JUDGE = "base", "audioldm"
NOT_METRICS = ("num_clips", "num_held_out_clips", "coverage")
NO_INTERVAL = {"ci_low": None, "ci_high": None, "n": None, "half_width": ""}
NO_NUMBER = {"coverage": None, "gpu_seconds": None, "gap": "", **NO_INTERVAL}
CELL = ["table", "row", "seed"]  # the columns that name a cell


@dataclass(frozen=True)
class Result:
    """A planned cell and what its run folder says."""

    cell: PlannedCell
    state: CellState

    def values(self) -> dict[str, float]:
        """Every number of a finished cell, by metric; {} for a cell that isn't done."""
        if self.state.state != DONE:
            return {}
        found = self.state.metrics | self._costs()
        numbers = {name: value for name, value in found.items() if isinstance(value, int | float)}
        return {name: float(value) for name, value in numbers.items() if not isinstance(value, bool)}

    def _costs(self) -> dict[str, Any]:
        """Time and size of a trained model by metric; None where the run has no record of it, or trained nothing."""
        run = self.state.run if self.cell.source == "model" else {}
        parameters, head, gpu = (run.get(key) for key in ("num_parameters", "num_head_parameters", "gpu_seconds"))
        return {
            "train_seconds": run.get("train_seconds"),
            "sample_seconds": self.state.timings.get("sample_seconds") if run else None,
            "parameters": parameters,
            "head_parameters": head,
            "head_share": head / parameters if head is not None and parameters else None,
            "gpu_hours": gpu / 3600 if gpu else None,
        }

    def held_out(self) -> dict[str, Metric]:
        """The held-out metric that the run's record declares; of an older record, the one that all tables had."""
        if declared := self.state.run.get("held_out_metric"):
            return {declared["name"]: Metric(declared["digits"], declared["better"])}
        return {name: metric for name, metric in HELD_OUT_BEFORE.items() if name in self.state.metrics}

    def notes(self) -> str:
        """The line below the table: why there is no number, and which row has the same run."""
        parts = []
        if self.state.state != DONE:
            lines = self.state.reason.splitlines()
            parts.append(": ".join((self.state.state, *dict.fromkeys((*lines[:1], *lines[-1:])))))
        if self.state.metrics.get("out_of_domain"):
            parts.append("out of domain: the judge was trained on another corpus")
        stored = self.state.metrics.get("stored", {"stored": 0, "rows": 0})
        if stored["stored"] < stored["rows"]:
            parts.append(f"the store holds {stored['stored']} of the split's {stored['rows']} sounds")
        if self.cell.same_as:
            parts.append(f"the same run as {self.cell.same_as}")
        return "; ".join(parts)


@dataclass(frozen=True)
class _Columns:
    """What one table is made of.

    Attributes:
        listed: the metrics that `results.csv` lists of every cell.
        shown: the metrics that the table shows of ours.
        printed: the metrics and costs that it shows of the paper.
        several_seeds: whether its rows have more than one training seed.
    """

    listed: dict[str, Metric]
    shown: dict[str, Metric]
    printed: tuple[str, ...]
    several_seeds: bool


def results_frame(plan: Plan, results: Sequence[Result]) -> pd.DataFrame:
    """Return every metric of every cell, table by table; no row at all where nothing is planned.

    Its columns are the keys of `_cell_facts` and `_metric_facts`, each with its comment there; then `best`, whether no
    trained row of the table looks better; and those of `compare_with`, empty where there is nothing to compare.

    Args:
        plan: the plan.
        results: what the run folders of its cells say.

    Raises:
        ValueError: the pseudo-values of a finished cell are damaged.
    """
    tables: dict[str, list[Result]] = {}
    for result in results:
        tables.setdefault(result.cell.table, []).append(result)
    frames = [_table_frame(plan, name, of_table) for name, of_table in tables.items()]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _table_frame(plan: Plan, name: str, results: Sequence[Result]) -> pd.DataFrame:
    columns = _columns(plan, name, results)
    rows = [row for result in results for row in _cell_rows(plan, result, columns)]
    # Objects keep apart a value that is missing (None) and one that isn't a number (nan).
    frame = pd.DataFrame(rows, dtype=object)
    frame = frame.astype(dict.fromkeys(("reference", "comparable", "judged", "listed"), bool))
    frame = frame.astype(dict.fromkeys(("shown", "printed"), int))
    frame["best"] = _best(frame)
    return frame.merge(compare_with(plan.tables[name].baseline, frame), on=["row", "metric"], how="left")


def _columns(plan: Plan, name: str, results: Sequence[Result]) -> _Columns:
    """The judge's metrics, what the heads declare, times, the table's own columns, GPU-hours where a run had a GPU."""
    held_out: dict[str, Metric] = {}
    for result in results:
        held_out |= result.held_out()
    listed = shown_metrics(plan.judge, held_out or HELD_OUT_BEFORE)
    hours = ("gpu_hours",) if any("gpu_hours" in result.values() for result in results) else ()
    shown = listed | {metric: METRICS[metric] for metric in (*plan.tables[name].columns, *hours)}
    costs = (cost for cost in PAPER_COSTS if any(cost in result.cell.published for result in results))
    several_seeds = len({result.cell.seed for result in results}) > 1
    return _Columns(listed, shown, (*PAPER_METRICS, *costs), several_seeds)


def _cell_rows(plan: Plan, result: Result, columns: _Columns) -> Iterator[dict[str, Any]]:
    values, facts = result.values(), _cell_facts(plan, result, columns.several_seeds)
    scores = sorted(name for name in result.state.metrics if name in values and name not in NOT_METRICS)
    listed = {*columns.listed, *scores} & values.keys() if result.state.state == DONE else columns.listed.keys()
    for name in dict.fromkeys((*columns.shown, *columns.printed, *scores)):
        metric = columns.shown.get(name) or METRICS.get(name, UNDECLARED)
        yield facts | _metric_facts(plan, result, name, metric, values.get(name)) | {
            "listed": name in listed,  # in results.csv
            "shown": [*columns.shown].index(name) + 1 if name in columns.shown else 0,  # place among our columns
            "printed": columns.printed.index(name) + 1 if name in columns.printed else 0,  # among the paper's
        }  # fmt: skip


def _cell_facts(plan: Plan, result: Result, several_seeds: bool) -> dict[str, Any]:
    """What the rows of one cell share."""
    cell, state = result.cell, result.state
    clips = state.metrics.get("num_clips")
    seed = {"seed": str(cell.seed)} if several_seeds else {}
    return {
        "matrix": plan.matrix,
        "table": cell.table,
        "title": plan.tables[cell.table].title,
        "judge": plan.judge,
        "scale": cell.scale,
        "comparable": _comparable(plan),  # with the paper's values
        "row": cell.row,
        "seed": cell.seed,
        "label": cell.label,
        "system": cell.system,
        "reference": cell.reference,
        "description": cell.description,
        "settings": cell.settings,  # by axis
        "words": {"row": cell.row, **cell.settings, **seed, "clips": "" if clips is None else str(clips)},
        "state": state.state,
        "notes": result.notes(),
        "num_clips": clips,
        "run_dir": cell.run_dir,
        "train_hash": cell.train_hash,
        "protocol_hash": cell.protocol_hash,
        "commit": state.run.get("commit") or "",
    }


def _comparable(plan: Plan) -> bool:
    """Whether the paper's values were measured at this scale and by this judge."""
    return plan.scale == PAPER_SCALE and plan.judge == PAPER_JUDGE


def _metric_facts(plan: Plan, result: Result, name: str, metric: Metric, value: float | None) -> dict[str, Any]:
    """What one row says of its metric; `value` is None where it is missing or doesn't apply."""
    facts: dict[str, Any] = {
        "metric": name,
        "heading": f"{name}{metric.arrow()}",  # as `fd_judge ↓`
        "digits": metric.digits,
        "better": metric.better,
        "judged": name in JUDGED[plan.judge],
        "published": result.cell.published.get(name, ""),  # as the paper prints it
        "value": value,
    }
    if value is None:
        done = result.state.state == DONE
        return facts | {"exact": "n/a" if done else "", "text": "n/a" if done else result.state.state} | NO_NUMBER
    return facts | {
        "exact": repr(value),
        "text": f"{value:.{metric.digits}f}",
        "coverage": result.state.metrics.get("coverage") if facts["judged"] else None,  # held-out losses hear others
        "gpu_seconds": result.state.run.get("gpu_seconds"),
        "gap": _gap(plan, value, name, metric.digits, facts["published"]),
        **_interval_facts(result, name, metric.digits),
    }


def _interval_facts(result: Result, name: str, digits: int) -> dict[str, Any]:
    """The 95 % interval over clips, half its width as text, and the number of clips; empty where there is none."""
    metrics = result.state.metrics
    ends = metrics.get("intervals", {}).get(name)
    if ends is None:
        return NO_INTERVAL
    held_out = "_loss" in name or any(name.startswith(declared) for declared in result.held_out())
    clips = metrics.get("num_held_out_clips" if held_out else "num_clips")
    return {"ci_low": ends[0], "ci_high": ends[1], "n": clips, "half_width": f"{(ends[1] - ends[0]) / 2:.{digits}f}"}


def _gap(plan: Plan, value: float, name: str, digits: int, published: str) -> str:
    """Ours less the paper's value; empty where there is none, or the two aren't comparable."""
    both = _comparable(plan) and name in PAPER_METRICS and published
    return f"{value - float(published):+.{digits}f}" if both else ""


def _best(frame: pd.DataFrame) -> list[bool]:
    """Whether a trained row's value looks as good as the best one of its metric; a row alone is never the best."""
    best = pd.Series(False, index=frame.index)
    trained = frame[~frame.reference & (frame.shown > 0) & (frame.better != 0) & frame.value.notna()]
    for _, rows in trained.groupby("metric"):
        finite = rows[rows.value.map(math.isfinite)]
        if len(finite) > 1:
            top = finite.text[(finite.value * finite.better).astype(float).idxmax()]
            best[rows.index] = rows.text == top
    return best.tolist()


def tables_of(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each table by its name, in order."""
    return dict(iter(frame.groupby("table", sort=False))) if len(frame) else {}


def lines_of(table: pd.DataFrame, columns: str = "shown") -> Iterator[tuple[Any, list[Any]]]:
    """The lines of a table: what all rows of a cell share (its first row), and those rows that are columns.

    Args:
        table: its rows.
        columns: `shown` for our columns, `printed` for the paper's.

    Yields:
        Named tuples of the data frame's columns.
    """
    place = operator.attrgetter(columns)
    for _, cell in itertools.groupby(table.itertuples(), operator.attrgetter("row", "seed")):
        rows = list(cell)
        yield rows[0], sorted(filter(place, rows), key=place)


def has_intervals(table: pd.DataFrame) -> bool:
    """Whether any of our values has one."""
    return bool((table.half_width[table.shown > 0] != "").any())


def without_repetitions(table: pd.DataFrame) -> pd.DataFrame:
    """The first seed of each row: what the rows say that doesn't depend on the seed."""
    return table[table.seed == table.groupby("row").seed.transform("first")]


def differences_of(table: pd.DataFrame) -> pd.DataFrame:
    """Differences from the baseline as text: a line for each row, a column for each metric."""
    compared = table[table.separable.notna()].drop_duplicates(["row", "metric"])
    wide = compared.pivot(index="row", columns="metric", values="difference_text")
    return wide.reindex(index=compared.row.unique(), columns=compared.metric.unique()).fillna("")

"""A planned cell with what its run folder says: values, intervals, notes."""

from dataclasses import dataclass
from typing import Any

from experiments.ablate.plan.plan_file import PlannedCell
from experiments.runs.state import DONE, CellState
from experiments.scoring.metrics import METRICS

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
        elif metric == "gpu_hours":
            value = run["gpu_seconds"] / 3600 if run.get("gpu_seconds") else None
        elif metric == "sample_seconds":
            value = self.state.timings.get(metric) if run else None
        elif metric in RECORDED:
            value = run.get(RECORDED[metric])
        else:
            value = self.state.metrics.get(metric)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Return the ends of a metric's 95 % interval over clips; None where it has none."""
        ends = self.state.metrics.get("intervals", {}).get(metric)
        return None if ends is None or self.value(metric) is None else (float(ends[0]), float(ends[1]))

    def num_clips(self, metric: str) -> int | None:
        """Return how many clips a metric rests on; None where it rests on none."""
        if self.interval(metric) is None:
            return None
        held_out = metric.partition("_loss")[1]
        return self.state.metrics.get("num_held_out_clips" if held_out else "num_clips")

    def rounded(self, metric: str) -> str:
        """Return a metric as text: rounded, `n/a` where it doesn't apply, else the cell's state."""
        value = self.value(metric)
        if value is None:
            return "n/a" if self.state.state == DONE else self.state.state
        return f"{value:.{METRICS[metric].digits}f}"

    def shown(self, metric: str) -> str:
        """Return a metric as text, with half the width of its interval where it has one."""
        ends = self.interval(metric)
        if ends is None:
            return self.rounded(metric)
        return f"{self.rounded(metric)} ± {(ends[1] - ends[0]) / 2:.{METRICS[metric].digits}f}"

    def notes(self) -> str:
        """Return the line below the table: why there is no number, and which row has the same run."""
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

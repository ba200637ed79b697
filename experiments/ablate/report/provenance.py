"""Where results come from: commits, versions, hosts, jobs, times and protocols."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.ablate.plan.plan_file import Plan
from experiments.ablate.results.table import Result
from experiments.ablate.slurm.array import ATTEMPT
from experiments.runs.state import DONE, seconds
from mntp.io.json_lines import read_json
from mntp.io.nested import flatten


@dataclass(frozen=True)
class Run:
    """Where a cell ran and how long.

    Attributes:
        result: the cell.
        taken: times of training, sampling and scoring, as text.
        job: id, restarts and nodes of its SLURM job; empty words where it had none.
    """

    result: Result
    taken: list[str]
    job: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """One commit and one set of versions, and the labels of the cells that share them."""

    facts: dict[str, str]
    labels: list[str]


def runs_of(results: Iterable[Result]) -> list[Run]:
    """The cells that were started, or given to SLURM."""
    return [run for run in map(_run, results) if run.result.state.run or run.job[0]]


def _run(result: Result) -> Run:
    try:
        attempt = read_json(Path(result.cell.run_dir) / ATTEMPT)
    except ValueError:  # damaged: what the cell itself left is shown without it
        attempt = {}
    job = tuple(str(attempt.get(key, "")) for key in ("job", "restarts", "nodes"))
    return Run(result, [seconds(value) for value in _times(result)], job)


def _times(result: Result) -> tuple[float | None, ...]:
    run, timings = result.state.run, result.state.timings
    trained = run.get("train_seconds") if result.cell.source == "model" else None
    return trained, timings.get("sample_seconds"), timings.get("score_seconds")


def origins_of(results: Sequence[Result]) -> list[Origin]:
    """Who made the results: cells grouped by commit, uncommitted changes, versions and hosts."""
    groups: dict[str, Origin] = {}
    for result in results:
        parts = {"trained": result.state.run, "scored": result.state.timings}
        if result.cell.source != "model":
            del parts["trained"]
        facts: dict[str, str] = {}
        for part, record in parts.items():
            if record.get("commit") or record.get("host"):
                facts |= {f"{part}: {key}": text for key, text in _facts(record).items()}
        if facts:
            origin = groups.setdefault(json.dumps(facts), Origin(facts, []))
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


def protocols_of(plan: Plan, results: Iterable[Result]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The protocols that finished cells were scored by: their hashes, and their rules with dotted keys."""
    used = {result.cell.protocol_hash for result in results if result.state.state == DONE}
    return [
        (key, [(name, str(value)) for name, value in flatten(rules).items()])
        for key, rules in plan.protocols.items()
        if key in used
    ]

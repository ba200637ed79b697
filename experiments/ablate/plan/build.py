"""From cells to runs: fill in every default, hash what can change a result, name the folders.

A run is its resolved configuration: two cells that resolve to the same one share a run, whatever they are called,
and a changed default is another run. A scoring is its protocol; a cell that only decodes differently is another
scoring of the same run.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from experiments.ablate.matrix.expand import Cell, CellKey
from experiments.ablate.matrix.overlay import Removal
from experiments.ablate.matrix.schema import Matrix, RowKey, cell_label
from experiments.ablate.plan.identity import INIT_PATH, train_hash
from experiments.ablate.plan.inputs import Inputs
from experiments.ablate.plan.job import Job
from experiments.ablate.plan.plan_file import Plan, PlannedCell, PlannedTable
from experiments.config.nodes import class_name, look_up, with_seed
from experiments.runs.record import final_checkpoint
from experiments.scoring.protocol import Protocol, protocol_hash

TRAINED_SYSTEM = "mntp.initial_weights.TrainedSystem"

Resolve = Callable[[dict[str, Any]], dict[str, Any]]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Scoring:
    """What a cell resolves to.

    Attributes:
        cell: the cell.
        config: the resolved configuration, with every default in it.
        run_dir: the run's folder.
        train_hash: the run's hash.
        protocol: how it is scored.
    """

    cell: Cell
    config: dict[str, Any]
    run_dir: Path
    train_hash: str
    protocol: Protocol

    @property
    def system(self) -> str:
        """The system's class name."""
        return class_name(self.config["model"])

    @property
    def label(self) -> str:
        """The cell's label."""
        return cell_label(*self.cell.key)

    @cached_property
    def key(self) -> tuple[str, str]:
        """Equal for cells that are answered by the same scoring of the same run."""
        return str(self.run_dir), protocol_hash(self.protocol)


Scorings = Mapping[CellKey, Scoring]


def build_plan(
    matrix: Matrix, cells: Sequence[Cell], selected: set[RowKey], runs: Path, resolve: Resolve, inputs: Inputs
) -> tuple[Plan, list[Job]]:
    """Resolve all cells before anything starts, and name their runs.

    Args:
        matrix: where the cells come from.
        cells: its expanded cells, all of one scale.
        selected: the (table, row id) pairs to run.
        runs: folder of all runs.
        resolve: validates a merged configuration and returns it with every default in it; called once per row and
            per base config, whatever the number of seeds.
        inputs: fingerprints of data, judge and weights; looked at only after every config is checked.

    Returns:
        The plan of all cells, and the jobs of the selected ones, each scoring once, a job after those it needs.

    Raises:
        ValueError: a configuration is refused, or weights are absent; the message says which file, line and row.
    """
    configs, bases = _resolve_rows(cells, resolve)
    scorings = _score_cells(cells, configs, runs, inputs)
    planned = _plan_cells(scorings, bases, selected)
    protocols = {scoring.key[1]: scoring.protocol for scoring in scorings.values()}
    _check_alike(planned.values(), protocols, {cell.table for cell in cells if cell.row.decodes_from})
    tables = {name: matrix.tables[name] for name in dict.fromkeys(cell.table for cell in cells)}
    plan = Plan(
        matrix=matrix.name,
        scale=cells[0].scale,
        judge=cells[0].evaluation.judge,
        tables={name: PlannedTable(t.title, t.columns, t.baseline, t.excluded) for name, t in tables.items()},
        protocols=protocols,
        cells=tuple(planned.values()),
    )
    return plan, _jobs([scoring for key, scoring in scorings.items() if planned[key].selected], scorings)


def needs_first(keys: Iterable[Key], needs: Callable[[Key], Iterable[Key]]) -> list[Key]:
    """Return keys in their order, but each after those that it needs; the needs have no circle."""
    placed: dict[Key, None] = {}

    def place(key: Key) -> None:
        for need in needs(key):
            if need not in placed:
                place(need)
        placed.setdefault(key)

    for key in keys:
        place(key)
    return list(placed)


def _resolve_rows(
    cells: Iterable[Cell], resolve: Resolve
) -> tuple[dict[RowKey, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The resolved config of each row and of each base config, with seed 0."""
    rows: dict[RowKey, dict[str, Any]] = {}
    bases: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if (cell.table, cell.row.id) not in rows:
            rows[cell.table, cell.row.id] = _resolved(cell, with_seed(cell.config, 0), resolve)
        if cell.base_name not in bases:
            bases[cell.base_name] = resolve(with_seed(cell.base, 0))
    return rows, bases


def _score_cells(
    cells: Sequence[Cell], configs: Mapping[RowKey, dict[str, Any]], runs: Path, inputs: Inputs
) -> dict[CellKey, Scoring]:
    """The scoring of each cell, in the cells' order; a run that another one starts from is named first."""
    by_key = {cell.key: cell for cell in cells}
    found: dict[CellKey, Scoring] = {}
    for key in needs_first(by_key, lambda key: _needed_keys(by_key[key])):
        cell = by_key[key]
        config = with_seed(configs[cell.table, cell.row.id], cell.seed)
        found[key] = _score_cell(cell, config, runs, found, inputs)
    return {key: found[key] for key in by_key}


def _needed_keys(cell: Cell) -> list[CellKey]:
    return [(*need, cell.seed) for need in cell.row.needs]


def _score_cell(cell: Cell, config: dict[str, Any], runs: Path, found: Scorings, inputs: Inputs) -> Scoring:
    """Name a cell's run and scoring; the runs that it needs are named already."""
    weights = ""
    if cell.row.init_from:
        start = found[*cell.row.init_from, cell.seed]
        init = {"class_path": TRAINED_SYSTEM, "init_args": {"path": str(final_checkpoint(start.run_dir))}}
        config, weights = {**config, "init": init}, f"{start.system}-{start.train_hash}"
    elif file := look_up(config, INIT_PATH):
        weights = inputs.weights(file, f"{cell.row.where}: {cell.table} row {cell.row.id}")
    shared = inputs.data(config)
    trained = train_hash(config, shared["store"], weights)
    if cell.row.decodes_from:
        _check_decodes(cell, config, trained, found[*cell.row.decodes_from, cell.seed])
    name = f"{class_name(config['model'])}-{trained}-s{cell.seed}"
    return Scoring(cell, config, runs / name, trained, _protocol(cell, config, shared))


def _plan_cells(
    scorings: Scorings, bases: Mapping[str, dict[str, Any]], selected: set[RowKey]
) -> dict[CellKey, PlannedCell]:
    first: dict[tuple[str, str], str] = {}
    planned = {}
    for key, scoring in scorings.items():
        cell, same_as = scoring.cell, first.setdefault(scoring.key, scoring.label)
        scores_model = cell.row.source == "model"  # ground truth and reconstruction need no system
        planned[key] = PlannedCell(
            table=cell.table,
            row=cell.row.id,
            reference=cell.row.reference,
            system=scoring.system if scores_model else "",
            scale=cell.scale,
            seed=cell.seed,
            description=cell.row.description,
            settings=cell.settings if scores_model else dict.fromkeys(cell.settings, ""),
            source=cell.row.source,
            differences=_differences(cell, with_seed(bases[cell.base_name], cell.seed), scoring.config),
            published=cell.row.published,
            selected=(cell.table, cell.row.id) in selected,
            needs={need.label: str(need.run_dir) for need in _needed(scoring, scorings)},
            same_as="" if same_as == scoring.label else same_as,
            run_dir=str(scoring.run_dir),
            train_hash=scoring.train_hash,
            protocol_hash=scoring.key[1],
        )
    return planned


def _needed(scoring: Scoring, scorings: Scorings) -> list[Scoring]:
    """The scorings whose runs must be trained first; not the one that is the cell's own."""
    needed = [scorings[key] for key in _needed_keys(scoring.cell)]
    return [need for need in needed if need.key != scoring.key]


def _jobs(selected: Iterable[Scoring], scorings: Scorings) -> list[Job]:
    """Each scoring once, in the cells' order but for those that others need, which come before them."""
    cells: dict[tuple[str, str], list[Scoring]] = {}
    for scoring in selected:
        cells.setdefault(scoring.key, []).append(scoring)
    needed = {key: {n.label: n for one in answered for n in _needed(one, scorings)} for key, answered in cells.items()}
    jobs = []
    for key in needs_first(cells, lambda key: [n.key for n in needed[key].values() if n.key in cells]):
        one, labels = cells[key][0], tuple(scoring.label for scoring in cells[key])
        needs = {label: need.run_dir for label, need in needed[key].items()}
        jobs.append(Job(labels, one.run_dir, one.config, one.protocol, key[1], needs))
    return jobs


def _check_alike(planned: Iterable[PlannedCell], protocols: Mapping[str, Protocol], decoding: Collection[str]) -> None:
    """A table compares: its rows are scored alike; and decoded alike, except in tables that compare ways of decoding.

    Rows of another head have settings of sampling of their own: they are compared with each other.
    """
    seen: dict[tuple[str, str, str], tuple[str, dict[str, Any]]] = {}
    for cell in planned:
        protocol = protocols[cell.protocol_hash]
        parts = {("scoring", ""): protocol["scoring"]}
        if cell.source == "model" and cell.table not in decoding:
            head = class_name(cell.differences.get("model.init_args.head"))
            shared = dict(protocol["generation"]["decoding"] or {})  # None where nothing is decoded
            parts["decoding.sampling", head] = shared.pop("sampling", {})
            parts["decoding", ""] = shared
        for (part, head), content in parts.items():
            label, first = seen.setdefault((cell.table, part, head), (cell.label, content))
            for key in sorted(content.keys() & first.keys()):  # systems have keys of their own, the order of AudioMAR
                if content[key] != first[key]:
                    raise ValueError(
                        f"{cell.table}: {label} and {cell.label} can't stand in one table, their {part}.{key} is "
                        f"{first[key]} and {content[key]}; give their base configs the same"
                    )


def _check_decodes(cell: Cell, config: dict[str, Any], trained: str, model: Scoring) -> None:
    """A row of a table that decodes has the run of the row that it is like."""
    if trained != model.train_hash:
        keys = [s.key for s in cell.row.overlay if look_up(config, s.key) != look_up(model.config, s.key)]
        raise ValueError(
            f"{cell.row.where}: {cell.table} row {cell.row.id} would train a run of its own ({', '.join(keys)}); "
            f"its table decodes runs that exist, this row those of {model.label}"
        )


def _resolved(cell: Cell, config: dict[str, Any], resolve: Resolve) -> dict[str, Any]:
    try:
        return resolve(config)
    except ValueError as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{_where(cell, message)}: {cell.table} row {cell.row.id}: {message}") from None


def _where(cell: Cell, message: str) -> str:
    """Where the user has to look: the line of the overlay key that the complaint names first, else the row's."""
    last_parts = {change.where: re.escape(change.key.rpartition(".")[2]) for change in cell.overlay}
    found = {where: re.search(rf"\b{part}\b", message) for where, part in last_parts.items()}
    named = sorted((match.start(), where) for where, match in found.items() if match)
    return named[0][1] if named else cell.row.where


def _differences(cell: Cell, base: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The overlay's keys that change anything once every default is filled in, on both sides."""
    changes = {change.key: isinstance(change, Removal) for change in cell.overlay}
    if cell.row.init_from:
        changes["init"] = False
    values = {key: look_up(config, key) for key in changes}
    return {
        key: "(removed)" if changes[key] and value is None else value
        for key, value in values.items()
        if value != look_up(base, key)
    }


def _protocol(cell: Cell, config: dict[str, Any], shared: dict[str, str]) -> Protocol:
    """What a scoring depends on beside the run (see `experiments.scoring.protocol`)."""
    evaluation = cell.evaluation
    scoring = {
        "kind": evaluation.judge,
        "judge": shared["judge"],
        "store": shared["store"],  # with it the references, and a caption for each
        "split": evaluation.split,
        "num_clips": evaluation.num_clips,
    }
    generation = {
        "source": cell.row.source,
        "seed": evaluation.seed,
        "batch_size": evaluation.batch_size,
        "decoding": look_up(config, "model.init_args.decoding") if cell.row.source == "model" else None,
    }
    return {"scoring": scoring, "generation": generation}

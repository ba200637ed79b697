"""From cells to runs: fill in every default, hash what can change a result, name the folders.

A run is its resolved configuration: two cells that resolve to the same one share a run, whatever they are called,
and a changed default is another run. A scoring is its protocol; a cell that only decodes differently is another
scoring of the same run.
"""

import copy
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.ablate.matrix.expand import Cell, CellKey
from experiments.ablate.matrix.overlay import Removal
from experiments.ablate.matrix.schema import Matrix, RowKey, cell_label
from experiments.ablate.plan.identity import INIT_PATH, train_hash
from experiments.ablate.plan.job import Job
from experiments.ablate.plan.plan_file import Plan, PlannedCell, PlannedTable
from experiments.config.nodes import SEED_KEYS, class_name, look_up
from experiments.runs.record import final_checkpoint
from experiments.scoring.protocol import Protocol, protocol_hash
from mntp.heads import HEADS
from mntp.io.fingerprint import file_digest, hash_json

TRAINED_SYSTEM = "mntp.initial_weights.TrainedSystem"

Resolve = Callable[[dict[str, Any]], dict[str, Any]]


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

    @property
    def key(self) -> tuple[str, str]:
        """Equal for cells that are answered by the same scoring of the same run."""
        return str(self.run_dir), protocol_hash(self.protocol)


def build_plan(
    matrix: Matrix,
    cells: Sequence[Cell],
    selected: set[RowKey],
    runs: Path,
    resolve: Resolve,
    prepare: Callable[[dict[str, Any]], dict[str, str]],
    digest: Callable[[Path], str] = file_digest,
) -> tuple[Plan, list[Job]]:
    """Resolve all cells before anything starts, and name their runs.

    Args:
        matrix: where the cells come from.
        cells: its expanded cells, all of one scale.
        selected: the (table, row id) pairs to run.
        runs: folder of all runs.
        resolve: validates a merged configuration and returns it with every default in it.
        prepare: makes what cells share and returns its fingerprints, {"store": .., "judge": ..}; called once
            per distinct data section, whatever its seed.
        digest: tells the content of a file of weights; called once per file.

    Returns:
        The plan of all cells, and the jobs of the selected ones, each scoring once, a job behind those it needs.

    Raises:
        ValueError: a configuration is refused, or weights are absent; the message says which file, line and row.
    """
    resolve = _remembering(resolve)
    scorings = _Scorings(cells, runs, resolve, prepare, digest).all()
    first: dict[tuple[str, str], str] = {}
    planned: dict[CellKey, PlannedCell] = {}
    for key, scoring in scorings.items():
        needs = {need.label: str(need.run_dir) for need in _needed(scoring, scorings)}
        cell, same_as = scoring.cell, first.setdefault(scoring.key, scoring.label)
        differences = _differences(cell, resolve(cell.base), scoring.config)
        asked = (cell.table, cell.row.id) in selected
        planned[key] = _planned(scoring, differences, asked, needs, "" if same_as == scoring.label else same_as)
    protocols = {scoring.key[1]: scoring.protocol for scoring in scorings.values()}
    _check_alike(list(planned.values()), protocols, {cell.table for cell in cells if cell.row.decodes_from})
    tables = [table for table in matrix.tables.values() if table.name in {cell.table for cell in cells}]
    plan = Plan(
        matrix=matrix.name,
        scale=cells[0].scale,
        judge=cells[0].evaluation.judge,
        tables={t.name: PlannedTable(t.title, t.columns, t.baseline, t.excluded) for t in tables},
        protocols=protocols,
        cells=tuple(planned.values()),
    )
    return plan, _jobs({key: scoring for key, scoring in scorings.items() if planned[key].selected}, scorings)


class _Scorings:
    """Resolves cells; one that starts from a trained run is named after that run is."""

    def __init__(
        self,
        cells: Sequence[Cell],
        runs: Path,
        resolve: Resolve,
        prepare: Callable[[dict[str, Any]], dict[str, str]],
        digest: Callable[[Path], str],
    ) -> None:
        self._cells = {cell.key: cell for cell in cells}
        self._runs, self._resolve, self._prepare, self._digest = runs, resolve, prepare, digest
        self._done: dict[CellKey, Scoring] = {}
        self._shared: dict[str, dict[str, str]] = {}
        self._digests: dict[str, str] = {}

    def all(self) -> dict[CellKey, Scoring]:
        """Return all cells' scorings in the cells' order; nothing is prepared before every config is checked."""
        for cell in self._cells.values():
            _resolved(cell, cell.config, self._resolve)
        return {key: self._of(key) for key in self._cells}

    def _of(self, key: CellKey) -> Scoring:
        if key not in self._done:
            self._done[key] = self._scoring(self._cells[key])
        return self._done[key]

    def _scoring(self, cell: Cell) -> Scoring:
        config = _resolved(cell, cell.config, self._resolve)
        weights = ""
        if cell.row.init_from:
            start = self._of((*cell.row.init_from, cell.seed))
            path = str(final_checkpoint(start.run_dir))
            init = {"class_path": TRAINED_SYSTEM, "init_args": {"path": path}}
            config = _resolved(cell, {**cell.config, "init": init}, self._resolve)
            weights = f"{start.system}-{start.train_hash}"
        elif file := look_up(config, INIT_PATH):
            weights = self._digest_of(file, cell)
        shared = self._prepared(config)
        trained = train_hash(config, shared["store"], weights)
        if cell.row.decodes_from:
            _check_decodes(cell, config, trained, self._of((*cell.row.decodes_from, cell.seed)))
        name = f"{class_name(config['model'])}-{trained}-s{cell.seed}"
        return Scoring(cell, config, self._runs / name, trained, _protocol(cell, config, shared))

    def _prepared(self, config: dict[str, Any]) -> dict[str, str]:
        data = hash_json(_with_seeds(config, 0)["data"])
        if data not in self._shared:
            self._shared[data] = self._prepare(config)
        return self._shared[data]

    def _digest_of(self, file: str, cell: Cell) -> str:
        if file not in self._digests:
            try:
                self._digests[file] = self._digest(Path(file))
            except OSError as error:
                raise ValueError(
                    f"{cell.row.where}: {cell.table} row {cell.row.id} starts from the weights {file}, which can't be "
                    f"read ({error.strerror}): put them there, or set `init: null` in its base config for random ones"
                ) from error
        return self._digests[file]


def _needed(scoring: Scoring, scorings: Mapping[CellKey, Scoring]) -> list[Scoring]:
    """The scorings whose runs must be trained first; not the one that is the cell's own."""
    needed = [scorings[*key, scoring.cell.seed] for key in scoring.cell.row.needs]
    return [need for need in needed if need.key != scoring.key]


def _jobs(selected: Mapping[CellKey, Scoring], scorings: Mapping[CellKey, Scoring]) -> list[Job]:
    """Each scoring once, in the cells' order but for those that others need, which come before them."""
    cells: dict[tuple[str, str], list[Scoring]] = {}
    for scoring in selected.values():
        cells.setdefault(scoring.key, []).append(scoring)
    jobs: dict[tuple[str, str], Job] = {}

    def add(key: tuple[str, str]) -> None:
        needed = {need.label: need for scoring in cells[key] for need in _needed(scoring, scorings)}
        for need in needed.values():
            if need.key in cells and need.key not in jobs:
                add(need.key)
        one, labels = cells[key][0], tuple(scoring.label for scoring in cells[key])
        needs = {label: need.run_dir for label, need in needed.items()}
        jobs[key] = Job(labels, one.run_dir, one.config, one.protocol, key[1], needs)

    for key in cells:
        if key not in jobs:
            add(key)
    return list(jobs.values())


def _check_alike(planned: Sequence[PlannedCell], protocols: Mapping[str, Protocol], decoding: Collection[str]) -> None:
    """A table compares: its rows are scored alike; and decoded alike, but in tables that compare ways of decoding."""
    seen: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for cell in planned:
        protocol = protocols[cell.protocol_hash]
        parts = {"scoring": protocol["scoring"]}
        if cell.source == "model" and cell.table not in decoding:
            parts["decoding"] = protocol["generation"]["decoding"]
        for part, content in parts.items():
            label, first = seen.setdefault((cell.table, part), (cell.label, content))
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


def _remembering(resolve: Resolve) -> Resolve:
    """Resolve equal configurations once: rows share base configs, and the seeds of a row differ in their seed only."""
    known: dict[str, dict[str, Any]] = {}

    def remembered(config: dict[str, Any]) -> dict[str, Any]:
        seed = look_up(config, SEED_KEYS[0])
        unseeded = _with_seeds(config, 0)
        key = hash_json(unseeded)
        if key not in known:
            known[key] = resolve(copy.deepcopy(unseeded))  # parsers write into what they are given
        return _with_seeds(known[key], seed)

    return remembered


def _with_seeds(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """The configuration with another seed at every key that a cell's seed sets; the rest is shared, not copied."""
    for key in SEED_KEYS:
        *path, last = key.split(".")
        config = node = dict(config)
        for part in path:
            node[part] = node = dict(node[part])
        node[last] = seed
    return config


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
        "decoding": _decoding(config) if cell.row.source == "model" else None,
    }
    return {"scoring": scoring, "generation": generation}


def _decoding(config: dict[str, Any]) -> Any:
    """The settings of decoding; the solver that a head takes by default is null, also where it is named."""
    decoding = look_up(config, "model.init_args.decoding")
    head = HEADS.get(class_name(look_up(config, "model.init_args.head")))
    is_default = isinstance(decoding, dict) and head is not None and decoding.get("solver") == head.solvers[0]
    return {**decoding, "solver": None} if is_default else decoding


def _planned(
    scoring: Scoring, differences: dict[str, Any], selected: bool, needs: dict[str, str], same_as: str
) -> PlannedCell:
    cell = scoring.cell
    scores_model = cell.row.source == "model"  # ground truth and reconstruction hear no system
    return PlannedCell(
        table=cell.table,
        row=cell.row.id,
        reference=cell.row.reference,
        system=scoring.system if scores_model else "",
        scale=cell.scale,
        seed=cell.seed,
        description=cell.row.description,
        settings=cell.settings if scores_model else dict.fromkeys(cell.settings, ""),
        source=cell.row.source,
        differences=differences,
        published=cell.row.published,
        selected=selected,
        needs=needs,
        same_as=same_as,
        run_dir=str(scoring.run_dir),
        train_hash=scoring.train_hash,
        protocol_hash=scoring.key[1],
    )

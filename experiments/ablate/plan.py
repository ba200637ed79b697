"""From cells to runs: fill in every default, hash what can change a result, name the folders.

A run is its resolved configuration: two cells that resolve to the same one share a run, whatever they are called,
and a changed default is another run. A scoring is its protocol; a cell that only decodes differently is another
scoring of the same run.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.ablate.matrix import Cell, Matrix, look_up
from experiments.ablate.planned import Plan, PlannedCell

# Keys of the resolved configuration that can't change a trained model; everything else is in the train hash.
NOT_IN_TRAIN_HASH = {
    "model.init_args.seed": "stands in the folder's name, so that the seeds of a cell share their hash",
    "data.seed": "the same seed",
    "model.init_args.decoding": "sampling only: it is in the protocol hash",
    "data.store": "a path; what lies there is counted by the store's fingerprint",
    "data.num_workers": "the order of clips is a function of seed, epoch and position",
    "trainer.default_root_dir": "a path",
    "trainer.logger": "what is logged, and where",
    "trainer.log_every_n_steps": "logging",
    "trainer.enable_progress_bar": "display",
    "trainer.enable_model_summary": "display",
    "trainer.profiler": "measurement",
}
# Callbacks and plugins that only look at a run, or write it down; others (the moving average of the weights) change
# what is scored.
ONLOOKERS = ("AtomicCheckpointIO", "AudioWriter", "LastCheckpoint", "ModelCheckpoint", "ProgressFile", "SampleLogger")


@dataclass(frozen=True)
class Job:
    """One scoring of one run, and all cells that it answers.

    Attributes:
        labels: the cells' labels, `3G`, `8C`.
        run_dir: the run's folder.
        config: the resolved configuration.
        protocol: how it is scored.
        protocol_hash: the protocol's hash.
    """

    labels: tuple[str, ...]
    run_dir: Path
    config: dict[str, Any]
    protocol: dict[str, Any]
    protocol_hash: str

    @property
    def trains(self) -> bool:
        """Whether the run takes any training steps (the untrained model takes none)."""
        return look_up(self.config, "trainer.max_steps") != 0


def content_hash(content: Any) -> str:
    """Return 12 hex digits over plain data; the order of keys doesn't matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def train_hash(config: dict[str, Any], store: str) -> str:
    """Return the hash of everything that can change the trained model.

    Args:
        config: the resolved configuration.
        store: the prepared data's fingerprint.
    """
    config = copy.deepcopy(config)
    for key in NOT_IN_TRAIN_HASH:
        parent, _, last = key.rpartition(".")
        node = look_up(config, parent) if parent else config
        if isinstance(node, dict):
            node.pop(last, None)
    for key in ("callbacks", "plugins"):
        if parts := look_up(config, f"trainer.{key}"):
            config["trainer"][key] = [part for part in parts if _class_name(part) not in ONLOOKERS]
    return content_hash({"config": config, "store": store})


def build_plan(
    matrix: Matrix,
    cells: Sequence[Cell],
    selected: set[tuple[str, str]],
    runs: Path,
    resolve: Callable[[dict[str, Any]], dict[str, Any]],
    prepare: Callable[[dict[str, Any]], dict[str, str]],
) -> tuple[Plan, list[Job]]:
    """Resolve all cells before anything starts, and name their runs.

    Args:
        matrix: where the cells come from.
        cells: its expanded cells, all of one scale.
        selected: the (table, row id) pairs to run.
        runs: folder of all runs.
        resolve: validates a merged configuration and returns it with every default in it.
        prepare: makes what cells share and returns its fingerprints, {"store": .., "judge": ..}; called once
            per distinct data section.

    Returns:
        The plan of all cells, and the jobs of the selected ones in order, each scoring once.

    Raises:
        ValueError: a configuration is refused; the message says which file, line and row.
    """
    resolve = _remembering(resolve)
    resolved = [{} if cell.row.not_run else _resolve(cell, resolve) for cell in cells]
    shared: dict[str, dict[str, str]] = {}
    planned: list[PlannedCell] = []
    protocols: dict[str, dict[str, Any]] = {}
    jobs: dict[tuple[str, str], Job] = {}
    first: dict[tuple[str, str], str] = {}
    for cell, config in zip(cells, resolved, strict=True):
        if cell.row.not_run:
            planned.append(_planned(cell, cell.settings.get("system", ""), selected=False))
            continue
        data = content_hash(config["data"])
        if data not in shared:
            shared[data] = prepare(config)
        protocol = _protocol(cell, config, shared[data])
        trained, scored, system = train_hash(config, shared[data]["store"]), content_hash(protocol), _system(config)
        run_dir = runs / f"{system}-{trained}-s{cell.seed}"
        key = (str(run_dir), scored)
        item = _planned(
            cell,
            system,
            differences=_differences(cell, resolve(cell.base), config),
            selected=(cell.table, cell.row.id) in selected,
            same_as=first.get(key, ""),
            run_dir=str(run_dir),
            train_hash=trained,
            protocol_hash=scored,
        )
        first.setdefault(key, item.label)
        protocols[scored] = protocol
        planned.append(item)
        if item.selected:
            labels = (*(jobs[key].labels if key in jobs else ()), item.label)
            jobs[key] = Job(labels, run_dir, config, protocol, scored)
    _check_alike(planned, protocols)
    titles = {table.name: table.title for table in matrix.tables.values()}
    return Plan(matrix.name, cells[0].scale, titles, protocols, tuple(planned)), list(jobs.values())


def _check_alike(planned: Sequence[PlannedCell], protocols: dict[str, dict[str, Any]]) -> None:
    """A table compares: all its rows hear the same clips and the same judge."""
    seen: dict[str, tuple[str, tuple[str, ...]]] = {}
    for cell in planned:
        if not cell.reason:
            heard = tuple(str(protocols[cell.protocol_hash][key]) for key in ("store", "judge"))
            label, first = seen.setdefault(cell.table, (cell.label, heard))
            if heard != first:
                raise ValueError(
                    f"{cell.table}: {label} and {cell.label} can't stand in one table, their store and judge are "
                    f"{' '.join(first)} and {' '.join(heard)}; give their base configs the same data section"
                )


def _resolve(cell: Cell, resolve: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    try:
        return resolve(cell.config)
    except ValueError as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{_where(cell, message)}: {cell.table} row {cell.row.id}: {message}") from None


def _where(cell: Cell, message: str) -> str:
    """Where the user has to look: the line of the overlay key that the complaint names first, else the row's."""
    last_parts = {key: re.escape(key.rpartition(".")[2]) for key in cell.settings_where}
    found = {key: re.search(rf"\b{part}\b", message) for key, part in last_parts.items()}
    named = sorted((match.start(), key) for key, match in found.items() if match)
    return cell.settings_where[named[0][1]] if named else cell.row.where


def _remembering(resolve: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Resolve equal configurations once: the rows of a table share a few base configs."""
    known: dict[str, dict[str, Any]] = {}

    def remembered(config: dict[str, Any]) -> dict[str, Any]:
        key = content_hash(config)
        if key not in known:
            known[key] = resolve(copy.deepcopy(config))  # parsers write into what they are given
        return known[key]

    return remembered


def _differences(cell: Cell, base: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The overlay's keys that change anything once every default is filled in, on both sides."""
    values = {key: look_up(config, key) for key in cell.settings_where}
    return {key: value for key, value in values.items() if value != look_up(base, key)}


def _protocol(cell: Cell, config: dict[str, Any], shared: dict[str, str]) -> dict[str, Any]:
    """What a scoring depends on beside the run. Only the model's samples depend on decoding and seed."""
    evaluation = cell.evaluation
    protocol: dict[str, Any] = {
        "source": cell.row.source,
        "split": evaluation.split,
        "num_clips": evaluation.num_clips,
        "seed": evaluation.seed,
        "batch_size": evaluation.batch_size,
        "decoding": look_up(config, "model.init_args.decoding") if cell.row.source == "model" else None,
    }
    return protocol | {"judge": shared["judge"], "store": shared["store"]}


def _planned(
    cell: Cell,
    system: str,
    selected: bool,
    differences: dict[str, Any] | None = None,
    same_as: str = "",
    run_dir: str = "",
    train_hash: str = "",
    protocol_hash: str = "",
) -> PlannedCell:
    scores_model = cell.row.source == "model"  # ground truth and reconstruction hear no system
    return PlannedCell(
        table=cell.table,
        row=cell.row.id,
        reference=cell.row.reference,
        system=system if scores_model else "",
        scale=cell.scale,
        seed=cell.seed,
        description=cell.row.description,
        settings=cell.settings if scores_model else dict.fromkeys(cell.settings, ""),
        source=cell.row.source,
        differences=differences or {},
        published=cell.row.published,
        selected=selected,
        reason=cell.row.not_run,
        same_as=same_as,
        run_dir=run_dir,
        train_hash=train_hash,
        protocol_hash=protocol_hash,
    )


def _class_name(node: Any) -> str:
    return str(node["class_path"]).rpartition(".")[2] if isinstance(node, dict) and "class_path" in node else ""


def _system(config: dict[str, Any]) -> str:
    return _class_name(config["model"])

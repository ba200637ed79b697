"""The matrix language: `ablations.yaml` read, checked and expanded into cells. Pure: no torch, nothing is run.

    scales      base configs, their overlay, and how cells are scored
    axes        what varies; each named value is an overlay of dotted keys, or picks the base config
    tables      rows by the paper's ids; each names one value of every axis
    reference   rows that belong to every table: ground truth, reconstruction, untrained model

A value of an axis may imply values of others (`AudioMNTP` always drops), so that a row says nothing twice and
can't contradict itself. An overlay's value replaces the whole node at its key: a switched class never keeps the
old one's arguments.
"""

import copy
import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.ablate.document import Entry, load_document, not_known

PAPER = Path(__file__).resolve().parents[1] / "paper"
PAPER_METRICS = ("fd", "fad", "kl", "is", "clap")
# What a cell's seed sets: initialisation and noise, and the order of clips.
SEED_KEYS = ("model.init_args.seed", "data.seed")
SOURCES = ("model", "ground_truth", "reconstruction")


@dataclass(frozen=True)
class Setting:
    """One key of an overlay: `value` replaces the node at the dotted `key`; `where` is its file and line."""

    key: str
    value: Any
    where: str


Overlay = tuple[Setting, ...]


@dataclass(frozen=True)
class Evaluation:
    """How a cell is scored: which split, how many clips, the sampling seed, clips decoded at once."""

    split: str
    num_clips: int
    seed: int
    batch_size: int


@dataclass(frozen=True)
class Scale:
    """A size at which the whole matrix can run.

    Attributes:
        name: its name.
        configs: folder of base configs, `<config>.yaml` each.
        overlay: what this scale changes in every base config.
        evaluation: how its cells are scored.
    """

    name: str
    configs: Path
    overlay: Overlay
    evaluation: Evaluation


@dataclass(frozen=True)
class AxisValue:
    """A named value of an axis: the base config it picks (or None), its overlay, and the labels it implies."""

    config: str | None
    overlay: Overlay
    implies: dict[str, str]


@dataclass(frozen=True)
class Row:
    """A row of a table as declared.

    Attributes:
        id: the paper's id, or a reference row's name.
        where: file and line.
        axes: the value that it names per axis.
        overlay: keys of its own, beyond the axes.
        description: one sentence.
        published: the paper's values as printed, by metric; empty where the paper has none.
        not_run: why this row can't be run yet; empty if it can.
        source: what is scored: the model's samples, the ground truth, or the tokenizer's reconstruction of it.
        reference: True for the rows that every table carries.
    """

    id: str
    where: str
    axes: dict[str, str]
    overlay: Overlay
    description: str
    published: dict[str, str]
    not_run: str
    source: str = "model"
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """A table: its name (`table3`), title, rows by id, and which of them run unless others are asked for."""

    name: str
    title: str
    rows: dict[str, Row]
    default_rows: tuple[str, ...]

    def short(self) -> str:
        """Return the name's short form, as used in `3G`: the number of `table3`, else the name and a colon."""
        number = self.name.removeprefix("table")
        return number if number.isdigit() else f"{self.name}:"


@dataclass(frozen=True)
class Matrix:
    """A whole `ablations.yaml`, checked."""

    path: Path
    scales: dict[str, Scale]
    axes: dict[str, dict[str, AxisValue]]
    tables: dict[str, Table]
    reference: dict[str, Row]

    @property
    def name(self) -> str:
        """The file's name without its ending; the column `matrix` of the results."""
        return self.path.stem


@dataclass(frozen=True)
class Cell:
    """One row of one table, at one scale and seed.

    Attributes:
        table: the table's name.
        row: the row as declared.
        scale: the scale's name.
        seed: the run's seed.
        settings: the value of every axis, implied ones included.
        config: the merged configuration, before defaults are filled in.
        base: the scale's base config that it started from, with the same seed.
        settings_where: file and line of each overlay key that was applied.
        evaluation: how it is scored.
    """

    table: str
    row: Row
    scale: str
    seed: int
    settings: dict[str, str]
    config: dict[str, Any]
    base: dict[str, Any]
    settings_where: dict[str, str] = field(repr=False)
    evaluation: Evaluation


def load_matrix(path: Path) -> Matrix:
    """Read and check a matrix file.

    Args:
        path: the YAML file; folders named in it are relative to it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one line with file, line and key: not YAML, an unknown key, axis, value, row or paper's row.
    """
    keys = ("format", "scales", "axes", "tables", "reference")
    top = load_document(path).fields(keys, required=keys)
    if top["format"].integer() != 1:
        raise top["format"].error(f"this program reads format 1, got {top['format'].text()}")
    axes = _read_axes(top["axes"])
    scales: dict[str, Scale] = {}
    for name, entry in top["scales"].mapping().items():
        scales[name] = _read_scale(name, entry, path.parent, scales)
    tables = {name: _read_table(name, entry, axes) for name, entry in top["tables"].mapping().items()}
    return Matrix(path, scales, axes, tables, _read_reference(top["reference"], tables))


def expand(matrix: Matrix, scale: str, seeds: Sequence[int]) -> list[Cell]:
    """Return every cell of every table, references first, in the file's order.

    Args:
        matrix: the checked matrix.
        scale: one of its scales.
        seeds: seeds; the cells of one seed stand together.

    Raises:
        FileNotFoundError: a base config is absent.
        ValueError: an unknown scale, or an overlay that doesn't fit the base config.
    """
    if scale not in matrix.scales:
        raise ValueError(f"{matrix.path}: scale {not_known(scale, matrix.scales)}")
    bases: dict[str, dict[str, Any]] = {}
    return [
        _expand_row(matrix, table.name, row, matrix.scales[scale], seed, bases)
        for seed in seeds
        for table in matrix.tables.values()
        for row in (*matrix.reference.values(), *table.rows.values())
    ]


def select_rows(matrix: Matrix, rows: str) -> set[tuple[str, str]]:
    """Return the (table, row id) pairs to run.

    Args:
        matrix: the checked matrix.
        rows: "" for the default rows and the references, "all", or ids like "3A,3G,8B,untrained".

    Raises:
        ValueError: an unknown id, or one that is declared but can't be run yet (with the reason).
    """
    every = {f"{t.short()}{row.id}": [(t.name, row)] for t in matrix.tables.values() for row in t.rows.values()}
    reference = {row.id: [(name, row) for name in matrix.tables] for row in matrix.reference.values()}
    if rows == "all":
        chosen = [pair for pairs in (every | reference).values() for pair in pairs if not pair[1].not_run]
    elif rows == "":
        defaults = [f"{t.short()}{row}" for t in matrix.tables.values() for row in t.default_rows]
        chosen = [pair for word in (*defaults, *reference) for pair in (every | reference)[word]]
    else:
        chosen = [pair for word in rows.split(",") for pair in _named(word.strip(), every | reference)]
    return {(table, row.id) for table, row in chosen}


def _named(word: str, known: dict[str, list[tuple[str, Row]]]) -> list[tuple[str, Row]]:
    if word not in known:
        raise ValueError(f"row {not_known(word, known)}")
    row = known[word][0][1]
    if row.not_run:
        raise ValueError(f"row {word} can't be run: {row.not_run} ({row.where})")
    return known[word]


def overlaid(config: dict[str, Any], overlay: Iterable[Setting]) -> dict[str, Any]:
    """Return a copy of `config` in which each setting has replaced the whole node at its key.

    Raises:
        ValueError: the key's first part isn't in `config`, or its path leads through something with no keys.
    """
    result = copy.deepcopy(config)
    for setting in overlay:
        first, *_ = parts = setting.key.split(".")
        if first not in result:
            raise ValueError(f"{setting.where}: {setting.key}: in the base config, {not_known(first, result)}")
        node = result
        for depth, part in enumerate(parts[:-1], start=1):
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError(f"{setting.where}: {setting.key}: {'.'.join(parts[:depth])} is {node!r} in the "
                                 f"base config and has no keys; replace it whole")  # fmt: skip
        node[parts[-1]] = copy.deepcopy(setting.value)
    return result


def look_up(config: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key, None where there is none."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _expand_row(
    matrix: Matrix, table: str, row: Row, scale: Scale, seed: int, bases: dict[str, dict[str, Any]]
) -> Cell:
    values = {axis: matrix.axes[axis][value] for axis, value in row.axes.items()}
    config_name = next(value.config for value in values.values() if value.config)
    if config_name not in bases:
        bases[config_name] = overlaid(_read_config(scale.configs / f"{config_name}.yaml"), scale.overlay)
    base = overlaid(bases[config_name], (Setting(key, seed, row.where) for key in SEED_KEYS))
    overlay = [*(s for value in values.values() for s in value.overlay), *row.overlay]
    implied = {axis: label for value in values.values() for axis, label in value.implies.items()}
    named = implied | row.axes
    return Cell(
        table=table,
        row=row,
        scale=scale.name,
        seed=seed,
        settings={axis: named[axis] for axis in matrix.axes},
        config=overlaid(base, overlay),
        base=base,
        settings_where={s.key: s.where for s in (*scale.overlay, *overlay)},
        evaluation=scale.evaluation,
    )


def _read_config(path: Path) -> dict[str, Any]:
    entry = load_document(path)
    entry.mapping()  # anything but a mapping is refused, with its line
    config: dict[str, Any] = entry.value()
    return config


def _read_overlay(entry: Entry | None) -> Overlay:
    if entry is None:
        return ()
    settings = []
    for key, child in entry.mapping().items():
        if key.endswith(".class_path"):
            raise child.error(
                "a class is replaced with its arguments: give the whole node (class_path and init_args) at "
                f"{key.removesuffix('.class_path')}, or the old class's arguments would stay"
            )
        if key in SEED_KEYS:
            raise child.error("the seed is not the matrix's: a run is asked for with its seeds")
        settings.append(Setting(key, child.value(), child.where))
    return tuple(settings)


def _read_scale(name: str, entry: Entry, folder: Path, earlier: dict[str, Scale]) -> Scale:
    fields = entry.fields(("base", "configs", "set", "eval"), required=["eval"])
    evaluation = fields["eval"].fields(("split", "num_clips", "seed", "batch_size"), ["num_clips", "batch_size"])
    scoring = Evaluation(
        split=evaluation["split"].text() if "split" in evaluation else "test",
        num_clips=evaluation["num_clips"].integer(at_least=2),
        seed=evaluation["seed"].integer() if "seed" in evaluation else 0,
        batch_size=evaluation["batch_size"].integer(at_least=1),
    )
    if ("base" in fields) == ("configs" in fields):
        raise entry.error("a scale has either `configs`, its folder of base configs, or `base`, an earlier scale")
    own = _read_overlay(fields.get("set"))
    if "configs" in fields:
        return Scale(name, folder / fields["configs"].text(), own, scoring)
    base = earlier[fields["base"].choice(earlier)]
    return Scale(name, base.configs, (*base.overlay, *own), scoring)


def _read_axes(entry: Entry) -> dict[str, dict[str, AxisValue]]:
    names = entry.mapping()
    axes = {
        axis: {value: _read_value(child, names) for value, child in values.mapping().items()}
        for axis, values in names.items()
    }
    picking = [axis for axis, values in axes.items() if any(value.config for value in values.values())]
    if len(picking) != 1 or not all(value.config for value in axes[picking[0]].values()):
        raise entry.error("exactly one axis must pick the base config, by a `config` in each of its values; "
                          f"got {', '.join(picking) or 'none'}")  # fmt: skip
    return axes


def _read_value(entry: Entry, axes: Iterable[str]) -> AxisValue:
    fields = entry.fields(("config", "set", "implies"))
    implies = fields["implies"].fields(axes) if "implies" in fields else {}
    return AxisValue(
        config=fields["config"].text() if "config" in fields else None,
        overlay=_read_overlay(fields.get("set")),
        implies={axis: label.text() for axis, label in implies.items()},
    )


def _read_table(name: str, entry: Entry, axes: dict[str, dict[str, AxisValue]]) -> Table:
    fields = entry.fields(keys := ("title", "default_rows", "rows"), required=keys)
    rows = {row: _read_row(row, child, axes) for row, child in fields["rows"].mapping().items()}
    defaults = []
    for item in fields["default_rows"].items():
        row = rows[item.choice(rows)]
        if row.not_run:
            raise item.error(f"row {row.id} can't be run: {row.not_run}")
        defaults.append(row.id)
    return Table(name, fields["title"].text(), rows, tuple(defaults))


def _read_row(row_id: str, entry: Entry, axes: dict[str, dict[str, AxisValue]]) -> Row:
    fields = entry.fields(("axes", "set", "description", "paper", "not_run"), required=["axes", "description"])
    named = {
        axis: child.choice(axes[axis]) for axis, child in fields["axes"].fields(axes).items()
    }  # in the row's order; sorted by declaration below, so that two spellings of a row are one
    named = {axis: named[axis] for axis in axes if axis in named}
    _check_axes(fields["axes"], named, axes)
    return Row(
        id=row_id,
        where=entry.where,
        axes=named,
        overlay=_read_overlay(fields.get("set")),
        description=fields["description"].text(),
        published=_published(fields["paper"]) if "paper" in fields else {},
        not_run=fields["not_run"].text() if "not_run" in fields else "",
    )


def _check_axes(entry: Entry, named: dict[str, str], axes: dict[str, dict[str, AxisValue]]) -> None:
    """Every axis has one value, named or implied, and no two values write into the same node."""
    implied: dict[str, str] = {}
    written: dict[str, str] = {}
    for axis, value in named.items():
        for other, label in axes[axis][value].implies.items():
            if other in named or implied.get(other, label) != label:
                raise entry.error(f"{axis}: {value} already means {other}: {label}; leave {other} out")
            implied[other] = label
        for setting in axes[axis][value].overlay:
            for key, first in written.items():
                if f"{key}.".startswith(f"{setting.key}.") or f"{setting.key}.".startswith(f"{key}."):
                    raise entry.error(f"{axis}: {value} and {first} both set {setting.key}")
            written[setting.key] = f"{axis}: {value}"
    missing = [axis for axis in axes if axis not in named and axis not in implied]
    if missing:
        raise entry.error(f"no value for {', '.join(missing)}: a row names, or implies, one of every axis")


def _read_reference(entry: Entry, tables: dict[str, Table]) -> dict[str, Row]:
    """Reference rows: three scorings of one run, the model of the row `like` with their common overlay."""
    fields = entry.fields(("like", "set", "rows"), required=["like", "rows"])
    like = fields["like"].fields(keys := ("table", "row"), required=keys)
    rows = tables[like["table"].choice(tables)].rows
    model = rows[like["row"].choice(rows)]
    overlay = (*model.overlay, *_read_overlay(fields.get("set")))
    reference = {}
    for name, child in fields["rows"].mapping().items():
        own = child.fields(keys := ("source", "description"), required=keys)
        if clash := [table.name for table in tables.values() if name in table.rows]:
            raise child.error(f"{clash[0]} has a row of this name")
        reference[name] = Row(
            id=name,
            where=child.where,
            axes=model.axes,
            overlay=overlay,
            description=own["description"].text(),
            published={},
            not_run="",
            source=own["source"].choice(SOURCES),
            reference=True,
        )
    return reference


def _published(entry: Entry) -> dict[str, str]:
    """The paper's values of one row, as printed (1.70 stays 1.70)."""
    fields = entry.fields(keys := ("table", "row"), required=keys)
    path = PAPER / f"table{fields['table'].integer()}.csv"
    if not path.is_file():
        known = sorted(file.stem for file in PAPER.glob("table*.csv"))
        raise fields["table"].error(f"published values: {not_known(path.stem, known)}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    row = rows[fields["row"].choice(rows)]
    return {metric: row[metric] for metric in PAPER_METRICS if row.get(metric)}

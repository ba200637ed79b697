"""The matrix language: `ablations.yaml` read and checked. Pure: no torch, nothing is run.

    scales      base configs, their overlay, and how cells are scored
    axes        what varies; each named value is an overlay of dotted keys, or picks the base config
    tables      rows by the paper's ids: each names one value of every axis, or is `like` another row; or the product
                of axes, less what it excludes for a reason, with rows that it includes besides
    reference   rows that belong to every table: ground truth, reconstruction, untrained model

A value of an axis may imply values of others (`AudioMNTP` always drops), so that a row says nothing twice and
can't contradict itself. An overlay (`set`, `remove`) replaces the whole node at a key: a switched class never keeps
the old one's arguments but those that it names (`keep`).
"""

from collections.abc import Iterable
from pathlib import Path

from experiments.ablate.matrix.overlay import read_overlay
from experiments.ablate.matrix.rows import RowReader
from experiments.ablate.matrix.schema import (
    Axes,
    AxisValue,
    Evaluation,
    Matrix,
    Row,
    RowKey,
    Scale,
)
from experiments.ablate.matrix.yaml_document import Entry, load_document
from experiments.scoring.metrics import HELD_OUT, JUDGED


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
        scales[name] = _read_scale(entry, name, path.parent, scales)
    entries = top["tables"].mapping()
    reader = RowReader(axes, {name: _declared_rows(entry) for name, entry in entries.items()})
    tables = {name: reader.table(name, entry) for name, entry in entries.items()}
    _check_needs(reader.read)
    return Matrix(path, scales, axes, tables, reader.reference(top["reference"]))


def _declared_rows(entry: Entry) -> list[str]:
    """The rows that a table names one by one, all or beside its product."""
    fields = entry.mapping()
    rows = fields.get("rows") or fields.get("include")
    return list(rows.mapping()) if rows else []


def _read_scale(entry: Entry, name: str, folder: Path, earlier: dict[str, Scale]) -> Scale:
    fields = entry.fields(("base", "configs", "set", "eval"), required=["eval"])
    scoring = _read_evaluation(fields["eval"])
    if ("base" in fields) == ("configs" in fields):
        raise entry.error("a scale has either `configs`, its folder of base configs, or `base`, an earlier scale")
    own = read_overlay(fields)
    if "configs" in fields:
        return Scale(name, folder / fields["configs"].text(), own, scoring)
    base = earlier[fields["base"].choice(earlier)]
    return Scale(name, base.configs, (*base.overlay, *own), scoring)


def _read_evaluation(entry: Entry) -> Evaluation:
    fields = entry.fields(("judge", "split", "num_clips", "seed", "batch_size"))
    judge = fields["judge"].choice(JUDGED) if "judge" in fields else "embedded"
    if judge == HELD_OUT:
        if more := fields.keys() - {"judge"}:
            raise fields[min(more)].error("a held-out metric is taken on the whole validation split; leave this out")
        return Evaluation(judge, split="val")
    entry.fields(fields, required=("num_clips", "batch_size"))
    return Evaluation(
        judge=judge,
        split=fields["split"].text() if "split" in fields else "test",
        num_clips=fields["num_clips"].integer(at_least=2),
        seed=fields["seed"].integer() if "seed" in fields else 0,
        batch_size=fields["batch_size"].integer(at_least=1),
    )


def _read_axes(entry: Entry) -> Axes:
    names = entry.mapping()
    axes = {
        axis: {value: _read_value(child, names) for value, child in values.mapping().items()}
        for axis, values in names.items()
    }
    picking = [axis for axis, values in axes.items() if any(value.config for value in values.values())]
    if len(picking) != 1 or not all(value.config for value in axes[picking[0]].values()):
        raise entry.error(
            "exactly one axis must pick the base config, by a `config` in each of its values; got "
            f"{', '.join(picking) or 'none'}"
        )
    return axes


def _read_value(entry: Entry, axes: Iterable[str]) -> AxisValue:
    fields = entry.fields(("config", "set", "remove", "implies"))
    implies = fields["implies"].fields(axes) if "implies" in fields else {}
    return AxisValue(
        config=fields["config"].text() if "config" in fields else None,
        overlay=read_overlay(fields),
        implies={axis: label.text() for axis, label in implies.items()},
    )


def _check_needs(rows: dict[RowKey, Row]) -> None:
    """No row needs itself, through others either."""
    for key, row in rows.items():
        reached, waiting = set[RowKey](), [key]
        while waiting:
            for need in rows[waiting.pop()].needs:
                if need == key:
                    raise ValueError(f"{row.where}: {key[0]} row {key[1]} needs its own trained run to start from")
                if need not in reached:
                    reached.add(need)
                    waiting.append(need)

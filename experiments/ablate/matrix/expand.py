"""From rows to cells: each row at one scale and seed, with its merged config."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.ablate.matrix.overlay import Overlay, overlaid
from experiments.ablate.matrix.schema import Evaluation, Matrix, Row, Scale
from experiments.ablate.matrix.yaml_document import load_document, not_known
from experiments.config.nodes import with_seed

CellKey = tuple[str, str, int]  # table, row id, seed


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
        base_name: the base config's name.
        overlay: what was changed: by the scale, the axes and the row, in this order.
        evaluation: how it is scored.
    """

    table: str
    row: Row
    scale: str
    seed: int
    settings: dict[str, str]
    config: dict[str, Any]
    base: dict[str, Any]
    base_name: str
    overlay: Overlay = field(repr=False)
    evaluation: Evaluation

    @property
    def key(self) -> CellKey:
        """What tells it from the other cells of a plan."""
        return self.table, self.row.id, self.seed


def expand(matrix: Matrix, scale: str, seeds: Sequence[int], asked: Collection[str] = ()) -> list[Cell]:
    """Return every cell of every table, references first, in the file's order.

    Args:
        matrix: the checked matrix.
        scale: one of its scales.
        seeds: seeds; the cells of one seed stand together.
        asked: tables that were asked for; a product of axes is left out unless it is among them.

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
        if table.name in asked or not table.product
        for row in (*matrix.reference.values(), *table.rows.values())
    ]


def _expand_row(
    matrix: Matrix, table: str, row: Row, scale: Scale, seed: int, bases: dict[str, dict[str, Any]]
) -> Cell:
    values = {axis: matrix.axes[axis][value] for axis, value in row.axes.items()}
    config_name = next(value.config for value in values.values() if value.config)
    if config_name not in bases:
        document = load_document(scale.configs / f"{config_name}.yaml")
        document.mapping()  # anything but a mapping is refused, with its line
        bases[config_name] = overlaid(document.value(), scale.overlay)
    base = with_seed(bases[config_name], seed)
    overlay = (*(change for value in values.values() for change in value.overlay), *row.overlay)
    named = {axis: label for value in values.values() for axis, label in value.implies.items()} | row.axes
    return Cell(
        table=table,
        row=row,
        scale=scale.name,
        seed=seed,
        settings={axis: named[axis] for axis in matrix.axes},
        config=overlaid(base, overlay),
        base=base,
        base_name=config_name,
        overlay=(*scale.overlay, *overlay),
        evaluation=scale.evaluation,
    )

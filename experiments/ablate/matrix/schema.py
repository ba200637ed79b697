"""What a matrix declares, once it is read and checked: plain dataclasses."""

from dataclasses import dataclass, field
from pathlib import Path

from experiments.ablate.matrix.overlay import Overlay

SOURCES = ("model", "ground_truth", "reconstruction")

RowKey = tuple[str, str]  # table, row id


@dataclass(frozen=True)
class Evaluation:
    """How a cell is scored.

    Attributes:
        judge: one of `experiments.scoring.metrics.JUDGED`.
        split: whose clips are generated and scored.
        num_clips: how many of them; 0 for `held_out`, which measures the whole validation split.
        seed: of the sampling.
        batch_size: clips decoded at once.
    """

    judge: str = "embedded"
    split: str = "test"
    num_clips: int = 0
    seed: int = 0
    batch_size: int = 0


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


Axes = dict[str, dict[str, AxisValue]]  # axis, value


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
        init_from: the row whose trained run it starts from.
        decodes_from: the row whose runs it decodes; it trains nothing of its own then.
        source: what is scored: the model's samples, the ground truth, or the tokenizer's reconstruction of it.
        reference: True for the rows that every table carries.
    """

    id: str
    where: str
    axes: dict[str, str]
    overlay: Overlay
    description: str
    published: dict[str, str]
    init_from: RowKey | None = None
    decodes_from: RowKey | None = None
    source: str = "model"
    reference: bool = False

    @property
    def needs(self) -> tuple[RowKey, ...]:
        """The rows whose trained runs must be there before this one starts."""
        return tuple(key for key in (self.init_from, self.decodes_from) if key)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: as in `table3`.
        title: its heading.
        rows: by id.
        default_rows: those that run unless others are asked for.
        columns: what it shows beside the columns that all tables have.
        baseline: the row that the others' differences are taken from; None for a product.
        product: True for the product of axes, which is expanded only where it is asked for.
        excluded: combinations that a product leaves out, counted by the reason.
    """

    name: str
    title: str
    rows: dict[str, Row]
    default_rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    baseline: str | None = None
    product: bool = False
    excluded: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Matrix:
    """A whole `ablations.yaml`, checked."""

    path: Path
    scales: dict[str, Scale]
    axes: Axes
    tables: dict[str, Table]
    reference: dict[str, Row]

    @property
    def name(self) -> str:
        """The file's name without its ending; the column `matrix` of the results."""
        return self.path.stem

    def row(self, key: RowKey) -> Row:
        """Return a table's row or reference row."""
        table, row = key
        return self.tables[table].rows.get(row) or self.reference[row]


DEFAULT_SCALE = "micro"


def row_label(table: str, row: str) -> str:
    """Return what a row is called, and asked for by: `3G`, `3 H_mar`, `4:1`, `figure6a:3`."""
    number = table.removeprefix("table")
    if not number.isdigit() or not row[0].isalpha():
        return f"{number}:{row}"
    return f"{number}{row}" if len(row) == 1 else f"{number} {row}"


def cell_label(table: str, row: str, seed: int) -> str:
    """Return a row's label, with the seed where it isn't 0: `3G s1`."""
    return f"{row_label(table, row)} s{seed}" if seed else row_label(table, row)


@dataclass(frozen=True)
class ScheduleCurve:
    """A mask schedule as a curve.

    Attributes:
        formula: class and arguments.
        mean: of the ratio.
        density: in bins of equal width over [0, 1], atoms left out.
        atoms: [ratio, probability] of the ratios that have one of their own.
    """

    formula: str
    mean: float
    density: list[float]
    atoms: list[list[float]]

"""`plan.json`: what was planned, with every id frozen, so that looking at results needs neither torch nor YAML."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.ablate.matrix.schema import DEFAULT_SCALE, cell_label
from mntp.io.files import atomic_write

FORMAT = 3


@dataclass(frozen=True)
class PlannedCell:
    """A cell with the run and the scoring that answer it.

    Attributes:
        table: the table's name.
        row: the row's id.
        reference: True for ground truth, reconstruction and the untrained model.
        system: class name of the system.
        scale: the scale's name.
        seed: the run's seed.
        description: one sentence.
        settings: value of each axis.
        source: what is scored (`model`, `ground_truth`, `reconstruction`).
        differences: keys in which the config differs from the scale's base config, with their values.
        published: the paper's values as printed, by metric.
        selected: True where this plan was asked to run it.
        needs: folders of the runs that must be trained before it starts, by the label of their cells.
        same_as: label of an earlier cell with the same run and scoring; empty if there is none.
        run_dir: the run's folder.
        train_hash: 12 hex digits.
        protocol_hash: 12 hex digits.
        earlier: folder of the scoring that an earlier plan had for this cell where it is another one now; or empty.
    """

    table: str
    row: str
    reference: bool
    system: str
    scale: str
    seed: int
    description: str
    settings: dict[str, str]
    source: str
    differences: dict[str, Any]
    published: dict[str, str]
    selected: bool
    needs: dict[str, str]
    same_as: str
    run_dir: str
    train_hash: str
    protocol_hash: str
    earlier: str = ""

    @property
    def label(self) -> str:
        """The row's label, with the seed where it isn't 0: `3G s1`."""
        return cell_label(self.table, self.row, self.seed)


@dataclass(frozen=True)
class PlannedTable:
    """How a table is shown.

    Attributes:
        title: its heading.
        columns: what it shows beside the columns that all tables have.
        baseline: the row that the others' differences are taken from, or None.
        excluded: combinations that its product of axes leaves out, counted by the reason.
    """

    title: str
    columns: tuple[str, ...] = ()
    baseline: str | None = None
    excluded: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A whole plan.

    Attributes:
        matrix: name of the matrix.
        scale: its scale; a plan never mixes two.
        judge: whose scores its tables show.
        tables: how each is shown, by name.
        protocols: protocol hash to the protocol's content.
        cells: all cells of all tables, also those that weren't asked for.
        schedules: the mask ratio schedules of the matrix by name, as declared: `class_path` and `init_args`.
    """

    matrix: str
    scale: str
    judge: str
    tables: dict[str, PlannedTable]
    protocols: dict[str, dict[str, Any]]
    cells: tuple[PlannedCell, ...]
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)


def results_folder(out: Path, scale: str) -> Path:
    """Return where a scale's results lie: `out` itself for the default scale, a folder beneath it for another."""
    return out if scale == DEFAULT_SCALE else out / scale


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `folder/plan.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "plan.json") as file:
        json.dump({"format": FORMAT, **dataclasses.asdict(plan)}, file, indent=1)
        file.write("\n")


def read_plan(folder: Path) -> Plan:
    """Read `folder/plan.json`.

    Raises:
        FileNotFoundError: nothing was planned there.
        ValueError: the file isn't a plan of this format.
    """
    path = folder / "plan.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        cells = tuple(PlannedCell(**cell) for cell in content.pop("cells"))
        tables = {
            name: PlannedTable(**{**table, "columns": tuple(table["columns"])})
            for name, table in content.pop("tables").items()
        }
        content.pop("laws", None)  # earlier plans held the curves of the schedules
        return Plan(cells=cells, tables=tables, **content)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: nothing is planned here; `mntp ablate plan` writes it") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a plan of format {FORMAT} ({error}); `mntp ablate plan` rewrites it") from None

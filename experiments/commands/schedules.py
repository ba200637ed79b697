"""`mntp schedules`: draw the mask ratio schedules of a matrix (Figure 5 of the paper)."""

from pathlib import Path

from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.matrix.schedules import AXIS, KEY, schedule_curve, schedules_of
from experiments.ablate.results.figures import schedule_figure
from mntp.io.files import atomic_write

FORMATS = (".png", ".pdf", ".svg")


def schedules(out: Path = Path("figure5.png"), matrix: Path = Path("ablations.yaml")) -> None:
    """Draw the density of each mask ratio schedule that a matrix declares.

    Args:
        out: the picture, .png, .pdf or .svg.
        matrix: the YAML file; its axis `schedule` names them.

    Raises:
        ValueError: another kind of picture, no such axis, or a distribution that doesn't exist or can't be built.
    """
    if out.suffix not in FORMATS:
        raise ValueError(f"--out {out}: expected a name that ends in {', '.join(FORMATS)}")
    declared = schedules_of(load_matrix(matrix))
    if not declared:
        raise ValueError(f"{matrix}: declares no schedules: expected an axis '{AXIS}' whose values set {KEY}")
    figure = schedule_figure({name: schedule_curve(spec, declared) for name, spec in declared.items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out, "wb") as file:
        figure.savefig(file, format=out.suffix[1:], dpi=150)
    print(f"{len(declared)} schedules drawn: {out}")  # noqa: T201

"""`mntp laws`: draw the masking schedules of a matrix (Figure 5 of the paper)."""

from pathlib import Path

from experiments.ablate.matrix.schedules import declared_laws
from experiments.ablate.results.figures import schedules_figure
from mntp.io.files import atomic_write

FORMATS = (".png", ".pdf", ".svg")


def laws(out: Path = Path("figure5.png"), matrix: Path = Path("ablations.yaml")) -> None:
    """Draw the density of each masking schedule that a matrix declares.

    Args:
        out: the picture, .png, .pdf or .svg.
        matrix: the YAML file; its axis `schedule` names the laws.

    Raises:
        ValueError: another kind of picture, no such axis, or a law that doesn't exist or makes no sense.
    """
    if out.suffix not in FORMATS:
        raise ValueError(f"--out {out}: expected a name that ends in {', '.join(FORMATS)}")
    declared = declared_laws(matrix)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out, "wb") as file:
        schedules_figure(declared).savefig(file, format=out.suffix[1:], dpi=150)
    print(f"{len(declared)} laws drawn: {out}")  # noqa: T201

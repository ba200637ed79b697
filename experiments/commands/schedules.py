"""`mntp schedules`: draw the masking schedules of a matrix (Figure 5 of the paper)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.ablate.matrix.schedules import (
    VISIBLE_MASS,
    build_mask_ratio,
    declared_schedules,
    density,
    formula,
    mean_ratio,
)
from mntp.io.files import atomic_write
from mntp.masking import MaskRatio

FORMATS = (".png", ".pdf", ".svg")
NUM_BINS = 500
COLUMNS = 4


def schedules(out: Path = Path("figure5.png"), matrix: Path = Path("ablations.yaml")) -> None:
    """Draw the density of each masking schedule that a matrix declares.

    Args:
        out: the picture, .png, .pdf or .svg.
        matrix: the YAML file; its axis `schedule` names them.

    Raises:
        ValueError: another kind of picture, no such axis, or a distribution that doesn't exist or can't be built.
    """
    if out.suffix not in FORMATS:
        raise ValueError(f"--out {out}: expected a name that ends in {', '.join(FORMATS)}")
    declared = declared_schedules(matrix)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out, "wb") as file:
        schedules_figure(declared).savefig(file, format=out.suffix[1:], dpi=150)
    print(f"{len(declared)} schedules drawn: {out}")  # noqa: T201


def schedules_figure(declared: dict[str, dict[str, Any]]) -> Figure:
    """One panel a law: its density, its atoms as stems of their probability, its mean."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    built = {name: build_mask_ratio(spec) for name, spec in declared.items()}
    densities = {name: density(law, edges) for name, law in built.items()}
    top = max(1.0, *(float(values.max()) for values in densities.values()))
    columns = min(COLUMNS, len(built))
    rows = math.ceil(len(built) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for panel, (name, law) in zip(grid, built.items(), strict=False):
        panel.stairs(densities[name], edges, fill=True, alpha=0.25, color="C0")
        panel.stairs(densities[name], edges, color="C0", baseline=None)
        _mark(panel, law, top)
        panel.set(xlim=(0, 1), ylim=(0, 1.35 * top))  # the legend stands above the curves
        panel.set_title(name, fontweight="bold", loc="left")
        panel.set_title(formula(declared[name], declared), fontsize=8, loc="right")
        panel.legend(loc="upper left", fontsize=8, frameon=False, handlelength=1.2)
    for panel in grid[len(built) :]:
        panel.set_visible(False)
    for panel in grid[max(0, len(built) - columns) : len(built)]:
        panel.tick_params(labelbottom=True)
    figure.supxlabel("mask ratio")
    figure.supylabel("density")
    return figure


def _mark(panel: Axes, law: MaskRatio, top: float) -> None:
    """Mean and atoms; a stem of the mean's height has probability 1."""
    mean = mean_ratio(law)
    label = f"mean {mean:.2f}: {1 - mean:.0%} of AudioNTP's tokens"
    panel.vlines(mean, 0, top, color="0.4", linestyle="--", linewidth=1, label=label)
    for ratio, mass in law.atoms.items():
        if mass >= VISIBLE_MASS:
            panel.vlines(ratio, 0, mass * top, color="C3", linewidth=2, label=f"P(r = {ratio:g}) = {mass:.2g}")
            panel.plot(ratio, mass * top, "o", color="C3", markersize=4, clip_on=False)

"""`mntp laws`: draw the masking schedules of a matrix (Figure 5 of the paper)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.ablate.declared import Matrix
from experiments.ablate.matrix import load_matrix
from experiments.ablate.overlay import Setting
from experiments.ablate.planned import LawCurve
from mntp.files import atomic_write
from mntp.masking import RATIO_LAWS, RatioLaw
from mntp.registry import build

AXIS, KEY = "schedule", "model.init_args.ratio"
FORMATS = (".png", ".pdf", ".svg")
NUM_BINS = 500
NUM_CURVE_BINS = 100  # of a law in plan.json
COLUMNS = 4
VISIBLE_MASS = 1e-3  # atoms below it are not marked


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


def declared_laws(path: Path) -> dict[str, dict[str, Any]]:
    """The laws of a matrix's axis `schedule` by name, as declared: `class_path` and `init_args`.

    Raises:
        ValueError: the axis is missing.
    """
    declared = laws_of(load_matrix(path))
    if not declared:
        raise ValueError(f"{path}: draws nothing without an axis '{AXIS}' whose values set {KEY}")
    return declared


def law_curves(matrix: Matrix) -> dict[str, LawCurve]:
    """The laws of a matrix's axis `schedule` by name, drawn out; none where it has no such axis."""
    declared, edges = laws_of(matrix), np.linspace(0, 1, NUM_CURVE_BINS + 1)
    curves = {}
    for name, spec in declared.items():
        law = build_law(spec)
        values = [round(float(value), 4) for value in density(law, edges)]
        atoms = [[ratio, mass] for ratio, mass in law.atoms.items() if mass >= VISIBLE_MASS]
        curves[name] = LawCurve(formula(spec, declared), round(mean_ratio(law), 4), values, atoms)
    return curves


def laws_of(matrix: Matrix) -> dict[str, dict[str, Any]]:
    return {
        name: setting.value
        for name, value in matrix.axes.get(AXIS, {}).items()
        for setting in value.overlay
        if isinstance(setting, Setting) and setting.key == KEY
    }


def build_law(spec: dict[str, Any]) -> RatioLaw:
    """Build a law as declared, with the laws inside of it.

    Raises:
        ValueError: the class is unknown, or doesn't take its arguments.
    """
    settings = dict(spec.get("init_args", {}))
    if "laws" in settings:
        settings["laws"] = [build_law(inner) for inner in settings["laws"]]
    return build({"class": spec["class_path"].rpartition(".")[2], "settings": settings}, RATIO_LAWS, "masking law")


def mean_ratio(law: RatioLaw) -> float:
    """E[r], the area above the distribution function, to 1e-4."""
    middles = (np.arange(10_000) + 0.5) / 10_000
    return 1 - float(np.mean([law.cdf(float(r)) for r in middles]))


def density(law: RatioLaw, edges: np.ndarray) -> np.ndarray:
    """Mean density in the bins between `edges` [K + 1] -> [K], atoms left out."""
    mass = np.diff([law.cdf(float(edge)) for edge in edges])
    for ratio, atom in law.atoms.items():  # a bin is (left, right]; an atom at the first edge is in no bin
        if edges[0] < ratio <= edges[-1]:
            mass[np.searchsorted(edges, ratio) - 1] -= atom
    return mass / np.diff(edges)


def schedules_figure(declared: dict[str, dict[str, Any]]) -> Figure:
    """One panel a law: its density, its atoms as stems of their probability, its mean."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    built = {name: build_law(spec) for name, spec in declared.items()}
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
    figure.supxlabel("masking ratio")
    figure.supylabel("density")
    return figure


def _mark(panel: Axes, law: RatioLaw, top: float) -> None:
    """Mean and atoms; a stem of the mean's height has probability 1."""
    mean = mean_ratio(law)
    label = f"mean {mean:.2f}: {1 - mean:.0%} of AudioNTP's tokens"
    panel.vlines(mean, 0, top, color="0.4", linestyle="--", linewidth=1, label=label)
    for ratio, mass in law.atoms.items():
        if mass >= VISIBLE_MASS:
            panel.vlines(ratio, 0, mass * top, color="C3", linewidth=2, label=f"P(r = {ratio:g}) = {mass:.2g}")
            panel.plot(ratio, mass * top, "o", color="C3", markersize=4, clip_on=False)


def formula(spec: dict[str, Any], named: dict[str, dict[str, Any]]) -> str:
    """A law's class and arguments, a mixture by the names or formulas of its laws."""
    arguments = spec.get("init_args", {})
    if "laws" not in arguments:
        values = ", ".join(f"{value:g}" for value in arguments.values())
        return f"{spec['class_path'].rpartition('.')[2]}({values})"
    parts = []
    for inner, weight in zip(arguments["laws"], arguments["weights"], strict=True):
        names = [name for name, other in named.items() if other == inner]
        parts.append(f"{weight:g} {names[0] if names else formula(inner, named)}")
    return " + ".join(parts)

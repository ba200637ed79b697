"""The mask ratio schedules that a matrix declares, drawn as curves."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.ablate.matrix.overlay import Setting
from experiments.ablate.matrix.schema import Matrix, ScheduleCurve
from mntp.registry import build

if TYPE_CHECKING:
    from mntp.masking import MaskRatio

AXIS, KEY = "schedule", "model.init_args.mask_ratio"
NUM_BINS = 500
VISIBLE_MASS = 1e-3  # atoms below it are not marked


def schedule_curve(spec: dict[str, Any], named: dict[str, dict[str, Any]]) -> ScheduleCurve:
    """Compute the curve of a mask ratio schedule.

    Args:
        spec: the distribution as declared: `class_path` and `init_args`.
        named: the matrix's schedules, by whose names the formula of a mixture calls its components.

    Raises:
        ValueError: the class is unknown, doesn't take its arguments, or has no distribution function.
    """
    ratio = build_mask_ratio(spec)
    atoms = [[value, mass] for value, mass in ratio.atoms.items() if mass >= VISIBLE_MASS]
    try:
        values = density(ratio, np.linspace(0, 1, NUM_BINS + 1)).tolist()
        return ScheduleCurve(formula(spec, named), mean_ratio(ratio), values, atoms)
    except (RuntimeError, TypeError) as error:  # a user's own class need not have a cdf to be trained with
        raise ValueError(f"{spec['class_path']} can't be drawn: {error or 'it has no cdf'}") from error


def schedules_of(matrix: Matrix) -> dict[str, dict[str, Any]]:
    """The mask ratio distributions that a matrix declares, as config nodes by name."""
    return {
        name: setting.value
        for name, value in matrix.axes.get(AXIS, {}).items()
        for setting in value.overlay
        if isinstance(setting, Setting) and setting.key == KEY
    }


def build_mask_ratio(spec: dict[str, Any]) -> "MaskRatio":
    """Build a mask ratio distribution as declared, with its components.

    Raises:
        ValueError: the class is unknown or of a package that is neither imported nor allowed (see `mntp.registry`), or
            doesn't take its arguments.
    """
    from mntp.masking import MASK_RATIOS, MaskRatio  # torch, which reading a matrix doesn't need

    settings = dict(spec.get("init_args", {}))
    if "components" in settings:
        settings["components"] = [build_mask_ratio(inner) for inner in settings["components"]]
    name = spec["class_path"].removeprefix("mntp.masking.")
    return build({"class": name, "settings": settings}, MASK_RATIOS, "mask ratio", MaskRatio)


def mean_ratio(law: "MaskRatio") -> float:
    """E[r], the area above the distribution function, to 1e-4."""
    middles = (np.arange(10_000) + 0.5) / 10_000
    return 1 - float(np.mean([law.cdf(float(r)) for r in middles]))


def density(law: "MaskRatio", edges: np.ndarray) -> np.ndarray:
    """Mean density in the bins between `edges` [K + 1] -> [K], atoms left out."""
    mass = np.diff([law.cdf(float(edge)) for edge in edges])
    for ratio, atom in law.atoms.items():  # a bin is (left, right]; an atom at the first edge is in no bin
        if edges[0] < ratio <= edges[-1]:
            mass[np.searchsorted(edges, ratio) - 1] -= atom
    return mass / np.diff(edges)


def formula(spec: dict[str, Any], named: dict[str, dict[str, Any]]) -> str:
    """A law's class and arguments, a mixture by the names or formulas of its laws."""
    arguments = spec.get("init_args", {})
    if "components" not in arguments:
        values = ", ".join(f"{value:g}" for value in arguments.values())
        return f"{spec['class_path'].rpartition('.')[2]}({values})"
    parts = []
    for inner, weight in zip(arguments["components"], arguments["weights"], strict=True):
        names = [name for name, other in named.items() if other == inner]
        parts.append(f"{weight:g} {names[0] if names else formula(inner, named)}")
    return " + ".join(parts)

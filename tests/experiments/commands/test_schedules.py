"""Figure 5 by one command: every declared law, its density, its atoms and its mean."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.matrix.schedules import build_mask_ratio, density, mean_ratio, schedule_curve, schedules_of
from experiments.ablate.results.figures import schedule_figure
from experiments.commands.schedules import schedules
from experiments.main import call

MATRIX = Path(__file__).parents[3] / "ablations.yaml"
DECLARED = ("A", "B", "C", "D", "D_mar", "fixed", "uniform")
SPECS = schedules_of(load_matrix(MATRIX))
CURVES = {name: schedule_curve(spec, SPECS) for name, spec in SPECS.items()}


def test_the_command_draws_every_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "figure5.png"
    call(schedules, "schedules", ["--out", str(out), "--matrix", str(MATRIX)])
    assert out.read_bytes().startswith(b"\x89PNG") and out.stat().st_size > 20_000
    assert capsys.readouterr().out == f"7 schedules drawn: {out}\n"


def test_each_panel_shows_its_law() -> None:
    panels = [panel for panel in schedule_figure(CURVES).axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in panels] == list(DECLARED)
    assert panels[2].get_title(loc="right") == "0.5 A + 0.5 B"
    truncated = stats.truncnorm(-2, 0, 1.0, 0.5)
    curve = panels[1].patches[-1].get_data()
    middles = (curve.edges[1:] + curve.edges[:-1]) / 2
    assert curve.values == pytest.approx(truncated.pdf(middles), rel=1e-4)
    assert "P(r = 0.7) = 1" in [text.get_text() for text in panels[5].get_legend().get_texts()]


@pytest.mark.parametrize("name", DECLARED)
def test_density_atoms_and_mean_agree_with_draws(name: str) -> None:
    torch = pytest.importorskip("torch")
    law, edges = build_mask_ratio(SPECS[name]), np.linspace(0, 1, 101)
    mass = float((density(law, edges) * np.diff(edges)).sum()) + sum(law.atoms.values())
    assert mass == pytest.approx(1, abs=1e-9)
    generator = torch.Generator().manual_seed(0)
    values = np.array([law.sample(generator) for _ in range(2000)])
    error = 4 * values.std() / np.sqrt(2000) + 1e-4
    assert mean_ratio(law) == pytest.approx(values.mean(), abs=error)


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"figure5.gif: expected a name that ends in .png, .pdf, .svg"):
        schedules(tmp_path / "figure5.gif", MATRIX)


def test_curves_are_the_laws() -> None:
    assert tuple(CURVES) == DECLARED
    middles = (np.arange(500) + 0.5) / 500
    for name, curve in CURVES.items():
        density = np.array(curve.density)
        mass = density.mean() + sum(part for _, part in curve.atoms)
        mean = (density * middles).mean() + sum(ratio * part for ratio, part in curve.atoms)
        # A's tails outside of [0, 1] are atoms; those below 0.1 % aren't drawn
        assert (mass, mean) == pytest.approx((1.0, curve.mean), abs=2e-3), name
    assert CURVES["fixed"].atoms == [[0.7, 1.0]] and not np.any(np.abs(CURVES["fixed"].density) > 1e-9)
    assert CURVES["C"].formula == "0.5 A + 0.5 B" and CURVES["uniform"].density == pytest.approx([1.0] * 500)
    truncated = CURVES["D"].density
    assert truncated[:275] == [0.0] * 275 and truncated[424] > truncated[280] > 0 == truncated[425]

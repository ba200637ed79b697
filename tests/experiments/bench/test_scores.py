"""The yardstick itself: systems of known distances, a few trials of each pair."""

import json

import pytest
import torch

from experiments.bench.scores import NUM_FEATURES, TRUE_DISTANCE, bench_scores, deviations, draw_system, simulate
from mntp.metrics.frechet import frechet_distance


@pytest.mark.parametrize("kind", ["shifted", "narrow"])
@pytest.mark.parametrize("spectrum", ["white", "judge"])
def test_systems_have_the_distance_that_they_are_said_to_have(spectrum: str, kind: str) -> None:
    """Of 40,000 clips, whose bias is about a hundredth."""
    generator = torch.Generator().manual_seed(0)
    deviation = deviations(spectrum)
    reference = torch.randn(40_000, NUM_FEATURES, generator=generator, dtype=torch.float64)
    system = draw_system(kind, TRUE_DISTANCE, reference, deviation, generator)
    assert frechet_distance(reference * deviation, system) == pytest.approx(TRUE_DISTANCE, rel=0.02)


def test_the_judges_spectrum_has_its_effective_rank() -> None:
    variances = deviations("judge").square()
    assert (variances.sum() ** 2 / variances.square().sum()).item() == pytest.approx(9.0)


@pytest.mark.parametrize("spectrum", ["white", "judge"])
def test_equal_distances_are_equal_once_corrected_and_rarely_called_separable(spectrum: str) -> None:
    """30 trials of a 5 % test: six or more rejections once in 600 runs. The other tests reject far more."""
    row = simulate(spectrum, "equal distance, shifted and narrow", num_clips=128, num_trials=30, num_compared=8)
    assert row.raw[0] - row.raw[1] > 1.0
    assert abs(row.corrected[0] - row.corrected[1]) < 0.9  # 0.3 at 500 trials: three standard errors of 30
    assert row.corrected == pytest.approx(row.true, abs=0.9)
    assert row.separable <= 5 / 30
    assert row.by_exchange is not None and row.by_exchange > 0.2


def test_true_differences_are_seen() -> None:
    row = simulate("white", "different, both narrow", num_clips=128, num_trials=8)
    assert row.separable == 1.0 and row.by_bootstrap is None


def test_the_command_prints_a_line_for_each_pair(capsys: pytest.CaptureFixture[str]) -> None:
    bench_scores(trials=2, compared=0, clips=70)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 10 and {line["bench"] for line in lines} == {"scores"}
    assert lines[0]["by_bootstrap"] is None and lines[0]["true"] == [TRUE_DISTANCE, TRUE_DISTANCE]
    with pytest.raises(ValueError, match="--clips > 65"):
        bench_scores(clips=64)

"""`mntp bench solvers`: its exact network, its figure and its numbers."""

import json
from pathlib import Path

import pytest
import torch

from experiments.bench import solvers as bench
from mntp.heads import DiffusionSampling
from mntp.heads.schedules import DiffusionSchedule


def test_the_noise_prediction_is_the_gradient_of_the_log_density() -> None:
    target, schedule, k = bench.TARGETS["mixture"], DiffusionSchedule.cosine().respaced(10), 6
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].requires_grad_()
    alpha_bar = float(schedule.alpha_bar[k])
    scales = (alpha_bar * target.scales**2 + 1 - alpha_bar).sqrt()
    components = torch.distributions.Normal(alpha_bar**0.5 * target.means, scales)
    log_density = (components.log_prob(x) + target.weights.log()).logsumexp(dim=1)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    eps, _ = target.predict(schedule)(x.detach(), k)
    torch.testing.assert_close(eps, -((1 - alpha_bar) ** 0.5) * score)


def test_an_ancestral_step_has_the_variance_of_the_exact_posterior() -> None:
    """For N(m, s^2): beta-tilde and what is not known of x_0, s^2 (1 - alpha-bar) / (alpha-bar s^2 + 1 - alpha-bar)."""
    schedule, k, s = DiffusionSchedule.cosine().respaced(10), 4, 0.4
    _, v = bench.TARGETS["Gaussian"].predict(schedule)(torch.zeros(1, 1, dtype=torch.float64), k)
    low, high = float(schedule.posterior_log_variance[k]), float(schedule.betas[k].log())
    variance = float(torch.exp((v + 1) / 2 * high + (1 - v) / 2 * low))
    alpha_bar, before, beta = (float(t) for t in (schedule.alpha_bar[k], schedule.alpha_bar[k - 1], schedule.betas[k]))
    unknown = s**2 * (1 - alpha_bar) / (alpha_bar * s**2 + 1 - alpha_bar)
    weight = beta * before**0.5 / (1 - alpha_bar)
    assert variance == pytest.approx(beta * (1 - before) / (1 - alpha_bar) + weight**2 * unknown, rel=1e-9)


def test_errors_fall_with_the_steps_and_the_figure_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "STEPS", (6, 25))
    bench.solvers(tmp_path / "figures" / "solvers.svg", samples=4000)
    report = json.loads(capsys.readouterr().out)
    assert set(report["errors"]) == set(DiffusionSampling.solvers)
    for solver in ("ddim", "dpmpp_2m"):
        few, more = (report["errors"][solver][steps] for steps in ("6", "25"))
        assert abs(more["deviation"]) < abs(few["deviation"]) and more["quantile"] < few["quantile"]
    assert (tmp_path / "figures" / "solvers.svg").read_text().count("<path") > 20
    bench.solvers(tmp_path / "solvers.png", samples=100)
    assert (tmp_path / "solvers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("options", "message"), [({"out": Path("a.pdf")}, "svg or .png"), ({"samples": 0}, "above 0")])
def test_senseless_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench.solvers(**options)  # type: ignore[arg-type]  # any of them

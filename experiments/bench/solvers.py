"""`mntp bench solvers`: how wrong each solver of the diffusion head is by itself, for a network without any error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from experiments.bench.common import print_line
from mntp.heads import DiffusionSampling
from mntp.heads.schedules import DiffusionSchedule
from mntp.heads.solvers import SOLVERS, STOCHASTIC, Predict, kept_steps
from mntp.io.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = (4, 6, 8, 12, 16, 25, 50, 100)
SHARES = [share / 10 for share in range(1, 10)]
BISECTIONS = 60
MARKERS = dict(zip(SOLVERS, "osD^", strict=True))


@dataclass(frozen=True)
class GaussianMixture:
    """Tokens of one value whose noise prediction is known.

    Attributes:
        weights: of the components.
        means: of the components.
        scales: their standard deviations.
    """

    weights: Tensor
    means: Tensor
    scales: Tensor

    @staticmethod
    def of(weights: Sequence[float], means: Sequence[float], scales: Sequence[float]) -> "GaussianMixture":
        """Build it from plain numbers."""
        return GaussianMixture(*(torch.tensor(values, dtype=torch.float64) for values in (weights, means, scales)))

    def deviation(self) -> float:
        """Standard deviation of the tokens."""
        mean = (self.weights * self.means).sum()
        return float((self.weights * (self.scales**2 + (self.means - mean) ** 2)).sum().sqrt())

    def quantiles(self, shares: Sequence[float]) -> Tensor:
        """The values below which each share of the tokens lies, by bisection."""
        reach = float(self.means.abs().max() + 10 * self.scales.max())
        low, high = torch.full((len(shares),), -reach).double(), torch.full((len(shares),), reach).double()
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = (self.weights * torch.special.ndtr((middle[:, None] - self.means) / self.scales)).sum(dim=1)
            above = below > torch.tensor(shares)
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return low

    def predict(self, schedule: DiffusionSchedule) -> Predict:
        """The best noise prediction, and the variance output that makes an ancestral step as wide as it should be."""

        def predict(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
            alpha_bar = float(schedule.alpha_bar[k])
            alpha, sigma = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
            spread = alpha_bar * self.scales**2 + sigma**2
            away = x - alpha * self.means
            share = (self.weights.log() - spread.log() / 2 - away**2 / (2 * spread)).softmax(dim=1)
            mean = self.means + alpha * self.scales**2 / spread * away
            x_0 = (share * mean).sum(dim=1, keepdim=True)
            left = (share * (self.scales**2 * sigma**2 / spread + mean**2)).sum(dim=1, keepdim=True) - x_0**2
            low, high = float(schedule.posterior_log_variance[k]), math.log(float(schedule.betas[k]))
            variance = math.exp(low) + float(schedule.posterior_mean_x0[k]) ** 2 * left
            return (x - alpha * x_0) / sigma, 2 * (variance.log() - low) / (high - low) - 1

        return predict


TARGETS = {
    "Gaussian": GaussianMixture.of([1.0], [0.7], [0.4]),
    "mixture": GaussianMixture.of([0.35, 0.65], [-0.9, 0.6], [0.4, 0.5]),
}


def solvers(out: Path = Path("docs/solvers.svg"), samples: int = 50_000, seed: int = 0) -> None:
    """Draw each solver's error against the number of steps, with exact noise predictions; print one line of JSON.

    Errors of the standard deviation of N(0.7, 0.4^2), and the largest of nine quantiles of a mixture of two Gaussians.
    Deterministic solvers are without sampling error; that of the others falls with `samples`.

    Args:
        out: the figure, SVG or PNG.
        samples: tokens drawn with a stochastic solver.
        seed: of their noise.

    Raises:
        ValueError: `out` is of another kind, or `samples` is below 1.
    """
    if out.suffix not in (".svg", ".png"):
        raise ValueError(f"bench solvers: --out has to end in .svg or .png, got {out}")
    if samples < 1:
        raise ValueError(f"bench solvers: expected --samples above 0, got {samples}")
    errors = {solver: {steps: solver_errors(solver, steps, samples, seed) for steps in STEPS} for solver in SOLVERS}
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out, "wb") as file:
        _figure(errors).savefig(file, format=out.suffix[1:], metadata={"Date": None} if out.suffix == ".svg" else None)
    print_line("solvers", samples=samples, seed=seed, figure=str(out), errors=errors)


def solver_errors(solver: str, steps: int, samples: int, seed: int = 0) -> dict[str, float]:
    """Error of a solver with exact noise predictions.

    Args:
        solver: its name.
        steps: network calls for a token.
        samples: tokens drawn.
        seed: of the noise.

    Returns:
        `deviation`: relative error of the Gaussian's standard deviation; `quantile`: largest absolute error of the
        mixture's nine quantiles.
    """
    gaussian, mixture = (_tokens(target, solver, steps, samples, seed) for target in TARGETS.values())
    expected = TARGETS["mixture"].quantiles(SHARES)
    found = torch.quantile(mixture, torch.tensor(SHARES, dtype=torch.float64))
    return {
        "deviation": float(gaussian.std()) / TARGETS["Gaussian"].deviation() - 1,
        "quantile": float((found - expected).abs().max()),
    }


def _tokens(target: GaussianMixture, solver: str, steps: int, samples: int, seed: int) -> Tensor:
    """Tokens [samples] of a solver; the starting noise holds evenly spaced quantiles, in random order."""
    schedule = kept_steps(DiffusionSchedule.cosine(), solver, steps)
    generator = torch.Generator().manual_seed(seed)
    draws = steps if solver in STOCHASTIC else 1
    noise = torch.randn(samples, draws, 1, generator=generator, dtype=torch.float64)
    shares = (torch.randperm(samples, generator=generator) + 0.5) / samples
    noise[:, 0, 0] = torch.special.ndtri(shares.double())
    return SOLVERS[solver](
        schedule, target.predict(schedule), noise, DiffusionSampling(num_steps=steps, solver=solver)
    )[:, 0]


def _figure(errors: dict[str, dict[int, dict[str, float]]]) -> "Figure":
    """Two panels, errors against steps on logarithmic axes."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "mntp"  # the same file from the same numbers
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    titles = {"deviation": "standard deviation, relative error", "quantile": "largest error of nine quantiles"}
    for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for solver, by_steps in errors.items():
            sizes = [abs(each[key]) for each in by_steps.values()]
            axes.plot(list(by_steps), sizes, marker=MARKERS[solver], markersize=4, label=solver)
        axes.set(xscale="log", yscale="log", xlabel="steps", title=title)
        axes.set_xticks(STEPS, [str(steps) for steps in STEPS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure

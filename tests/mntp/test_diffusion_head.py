"""The diffusion head against formulas written out here, and against distributions whose denoiser is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from mntp.heads import HEADS, DiffusionHead, Head, HeadSampling
from mntp.heads.diffusion import discretised_log_likelihood, normal_kl
from mntp.heads.schedules import DiffusionSchedule, cosine_betas

D, C = 2, 4
FULL = DiffusionSchedule.cosine()


def test_the_cosine_schedule_is_the_published_formula() -> None:
    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [min(0.999, 1 - alpha_bar((i + 1) / 1000) / alpha_bar(i / 1000)) for i in range(1000)]
    torch.testing.assert_close(cosine_betas(1000), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0)


def test_the_posterior_is_bayes_rule() -> None:
    """q(x_{k-1} | x_k, x_0) as the product of two Gaussians in x_{k-1}."""
    k, x_0, x_k = 400, 0.7, -0.2
    before, beta = float(FULL.alpha_bar[k - 1]), float(FULL.betas[k])
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (math.sqrt(before) * x_0 / (1 - before) + math.sqrt(1 - beta) * x_k / beta) / precision
    assert float(FULL.posterior_variance[k]) == pytest.approx(1 / precision, rel=1e-12)
    ours = float(FULL.posterior_mean_x0[k]) * x_0 + float(FULL.posterior_mean_xt[k]) * x_k
    assert ours == pytest.approx(mean, rel=1e-10)


@pytest.mark.parametrize("steps", [2, 25, 100, 1000])
def test_respacing_keeps_alpha_bar_and_tells_the_original_time(steps: int) -> None:
    respaced = FULL.respaced(steps)
    torch.testing.assert_close(respaced.alpha_bar, FULL.alpha_bar[respaced.timesteps], rtol=0, atol=1e-12)
    assert respaced.timesteps[0] == 0
    assert respaced.timesteps[-1] == 999


@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_senseless_numbers_of_steps(steps: int) -> None:
    with pytest.raises(ValueError, match=f"got {steps}"):
        FULL.respaced(steps)


def test_the_bound_is_the_numerical_kl() -> None:
    mean1, log_variance1, mean2, log_variance2 = (torch.tensor(v, dtype=torch.float64) for v in (0.3, -1.0, -0.1, 0.2))
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    p = torch.distributions.Normal(mean1, (log_variance1 / 2).exp()).log_prob(x)
    q = torch.distributions.Normal(mean2, (log_variance2 / 2).exp()).log_prob(x)
    numerical = torch.trapezoid(p.exp() * (p - q), x)
    torch.testing.assert_close(normal_kl(mean1, log_variance1, mean2, log_variance2), numerical, rtol=1e-8, atol=0)


def test_bins_of_the_likelihood_cover_everything_once() -> None:
    centres = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mean, log_scale = torch.tensor(0.2, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    total = discretised_log_likelihood(centres, mean, log_scale).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-9)


@torch.no_grad()
def test_an_untrained_head_has_the_loss_that_theory_says() -> None:
    """Zero output: the squared error is E|noise|^2 = 1, the bound that of the mid variance and of x_0 = x_t."""
    head = DiffusionHead(D, C, width=16, depth=1).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, D, generator=generator, dtype=torch.float64)
    t = torch.full((20_000,), 500)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    mse, bound = head.loss_terms(torch.zeros(20_000, C, dtype=torch.float64), x, t, noise)
    assert float(mse.mean()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / 40_000))
    low, high = float(FULL.posterior_log_variance[500]), math.log(float(FULL.betas[500]))
    log_variance = (low + high) / 2
    alpha_bar = float(FULL.alpha_bar[500])
    error = float(FULL.posterior_mean_x0[500]) ** 2 * (1 - alpha_bar) / alpha_bar  # of the mean, per unit of noise
    expected = 0.5 * (log_variance - low - 1 + math.exp(low - log_variance) + error * math.exp(-log_variance))
    assert float(bound.mean()) == pytest.approx(expected / math.log(2), rel=0.03)


def test_the_bound_trains_the_variance_only() -> None:
    head = DiffusionHead(D, C, width=16, depth=1)
    nn.init.normal_(head.net.output_proj.weight)
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn(8, D, generator=generator), torch.randn(8, C, generator=generator)
    _, bound = head.loss_terms(z, x, torch.arange(8) * 100, torch.randn(8, D, generator=generator))
    bound.sum().backward()
    gradient = head.net.output_proj.weight.grad
    assert gradient is not None
    assert (gradient[:D] == 0).all()
    assert (gradient[D:] != 0).any()


class AnalyticDenoiser(nn.Module):
    """The best noise prediction for a mixture of Gaussians, at the small end of the variance range.

    Args:
        weights: [K]; means: [K, D]; covariances: [K, D, D].
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        self.weights, self.means, self.covariances = weights, means, covariances

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        alpha_bar = float(FULL.alpha_bar[int(t[0])])
        spread = alpha_bar * self.covariances + (1 - alpha_bar) * torch.eye(D)
        away = x[:, None] - math.sqrt(alpha_bar) * self.means
        scores = torch.linalg.solve(spread, away[..., None])[..., 0]
        log_density = torch.distributions.MultivariateNormal(math.sqrt(alpha_bar) * self.means, spread)
        share = (log_density.log_prob(x[:, None]) + self.weights.log()).softmax(dim=1)
        eps = math.sqrt(1 - alpha_bar) * (share[..., None] * scores).sum(dim=1)
        return torch.cat([eps, torch.full_like(eps, -1.0)], dim=-1)  # -1: the posterior's own variance


def draw(
    denoiser: AnalyticDenoiser,
    num_steps: int,
    samples: int = 8000,
    temperature: float = 1.0,
    solver: str = "ancestral",
) -> Tensor:
    head = DiffusionHead(D, C, width=8, depth=1)
    head.net = denoiser  # type: ignore[assignment]  # plays the network
    sampling = HeadSampling(num_steps, solver, temperature)
    noise = torch.randn(samples, head.num_draws(sampling), D, generator=torch.Generator().manual_seed(0))
    return head.sample(torch.zeros(samples, C), noise, sampling)


@pytest.mark.parametrize("solver", DiffusionHead.solvers)
def test_the_sampler_recovers_a_gaussian(solver: str) -> None:
    mean = torch.tensor([0.5, -1.0])
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
    x = draw(AnalyticDenoiser(torch.ones(1), mean[None], covariance[None]), num_steps=200, solver=solver)
    assert (x.mean(dim=0) - mean).abs().max() < 4 / math.sqrt(len(x))
    assert (x.T.cov() - covariance).abs().max() < 4 * math.sqrt(2 / len(x)) + 0.02  # 0.02: of 200 steps


@pytest.mark.parametrize("solver", DiffusionHead.solvers)
def test_the_sampler_recovers_the_weights_of_a_mixture(solver: str) -> None:
    weights, means = torch.tensor([0.3, 0.7]), torch.tensor([[-1.5, 0.0], [1.5, 0.5]])
    x = draw(AnalyticDenoiser(weights, means, 0.1 * torch.eye(D).expand(2, D, D)), num_steps=200, solver=solver)
    right = x[:, 0] > 0
    assert float(right.float().mean()) == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / len(x)) + 0.01)
    assert (x[right].mean(dim=0) - means[1]).abs().max() < 0.03


def test_temperature_narrows_the_distribution() -> None:
    denoiser = AnalyticDenoiser(torch.ones(1), torch.zeros(1, D), torch.eye(D)[None])
    spreads = [float(draw(denoiser, 50, 2000, temperature).std()) for temperature in (0.0, 0.5, 1.0)]
    assert spreads[0] < spreads[1] < spreads[2]


def test_every_head_is_in_the_registry() -> None:
    def concrete(cls: type[Head]) -> set[str]:
        own = {cls.__name__} if not getattr(cls, "__abstractmethods__", None) else set()
        return own.union(*(concrete(sub) for sub in cls.__subclasses__()))

    assert {name for name in concrete(Head)} == set(HEADS)

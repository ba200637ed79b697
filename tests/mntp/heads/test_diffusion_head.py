"""The diffusion head against formulas written out here, and against distributions whose denoiser is known."""

import math
from functools import cache
from itertools import combinations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from mntp.heads import DiffusionHead, DiffusionSampling
from mntp.heads.denoiser import Denoiser
from mntp.heads.likelihood import discretised_log_likelihood, normal_kl
from mntp.heads.schedules import DiffusionSchedule, cosine_betas
from mntp.heads.solvers import SOLVERS

D, C = 2, 4
FULL = DiffusionSchedule.cosine()


def test_the_cosine_schedule_is_the_published_formula() -> None:
    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [min(0.999, 1 - alpha_bar((i + 1) / 1000) / alpha_bar(i / 1000)) for i in range(1000)]
    torch.testing.assert_close(cosine_betas(1000), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0)


@cache
def written_out(num_steps: int | None = None) -> tuple[list[float], list[float]]:
    """Betas and alpha-bar of the cosine schedule in plain numbers; respaced, those of the steps that are kept."""

    def f(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha_bar, product = [], 1.0
    for i in range(1000):
        product *= 1 - min(0.999, 1 - f((i + 1) / 1000) / f(i / 1000))
        alpha_bar.append(product)
    if num_steps is not None:
        alpha_bar = [alpha_bar[round(k * 999 / (num_steps - 1))] for k in range(num_steps)]
    return [1 - now / before for now, before in zip(alpha_bar, [1.0, *alpha_bar], strict=False)], alpha_bar


def posterior(k: int, x_0: float, x_k: float, num_steps: int | None = None) -> tuple[float, float]:
    """Mean and variance of q(x_{k-1} | x_k, x_0), as the product of two Gaussians in x_{k-1} (Bayes' rule)."""
    betas, alpha_bar = written_out(num_steps)
    before, beta = alpha_bar[k - 1], betas[k]
    precision = 1 / (1 - before) + (1 - beta) / beta
    return (math.sqrt(before) * x_0 / (1 - before) + math.sqrt(1 - beta) * x_k / beta) / precision, 1 / precision


@pytest.mark.parametrize("num_steps", [None, 25, 100])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.8, 1.0])
def test_the_posterior_is_bayes_rule(share: float, num_steps: int | None) -> None:
    schedule = FULL if num_steps is None else FULL.respaced(num_steps)
    k, x_0, x_k = 1 + round(share * (schedule.num_steps - 2)), 0.7, -0.2
    mean, variance = posterior(k, x_0, x_k, num_steps)
    assert float(schedule.posterior_variance[k]) == pytest.approx(variance, rel=1e-9)
    assert math.exp(float(schedule.posterior_log_variance[k])) == pytest.approx(variance, rel=1e-9)
    ours = float(schedule.posterior_mean_x0[k]) * x_0 + float(schedule.posterior_mean_xt[k]) * x_k
    assert ours == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("steps", [2, 25, 100, 1000])
def test_respacing_keeps_alpha_bar_and_tells_the_original_time(steps: int) -> None:
    respaced = FULL.respaced(steps)
    betas, alpha_bar = written_out(steps)
    assert respaced.timesteps.tolist() == [round(k * 999 / (steps - 1)) for k in range(steps)]
    assert respaced.alpha_bar.tolist() == pytest.approx(alpha_bar, rel=1e-9)
    assert respaced.betas.tolist() == pytest.approx(betas, rel=1e-9)


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


def shaken_head() -> DiffusionHead:
    torch.manual_seed(0)
    head = DiffusionHead(D, C, width=16, depth=1).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    return head


def log_density(x: Tensor, mean: float, log_variance: float) -> Tensor:
    return -((x - mean) ** 2) / (2 * math.exp(log_variance)) - (log_variance + math.log(2 * math.pi)) / 2


@torch.no_grad()
@pytest.mark.parametrize("t", [0, 1, 2, 10, 400, 998, 999])
def test_both_terms_of_the_loss_are_the_formulas_written_out(t: int) -> None:
    """The squared error; and in bits the KL of q and p by integration, at t = 0 the probability of the token's bin."""
    head, generator = shaken_head(), torch.Generator().manual_seed(t)
    x, noise = (torch.randn(3, D, generator=generator, dtype=torch.float64) for _ in range(2))
    x[0, 0], x[1, 0] = -1.5, 1.5  # in the outer bins
    x[:, 1] *= 0.3
    z = torch.randn(3, C, generator=generator, dtype=torch.float64)
    mse, bound = head.loss_terms(z, x, torch.full((3,), t), noise)
    betas, alpha_bar = written_out()
    signal, spread = math.sqrt(alpha_bar[t]), math.sqrt(1 - alpha_bar[t])
    out = head.net(signal * x + spread * noise, torch.full((3,), t), z)
    for row in range(3):
        squares, bits = [], []
        for d in range(D):
            token, eps, v = float(x[row, d]), float(out[row, d]), float(out[row, D + d])
            noisy = signal * token + spread * float(noise[row, d])
            squares.append((float(noise[row, d]) - eps) ** 2)
            estimate, share = (noisy - spread * eps) / signal, (v + 1) / 2
            small = posterior(max(t, 1), 0.0, 0.0)[1]  # beta-tilde, at 0 that of 1
            log_variance = share * math.log(betas[t]) + (1 - share) * math.log(small)
            if t > 0:
                (mean, variance), (guess, _) = posterior(t, token, noisy), posterior(t, estimate, noisy)
                grid = mean + math.sqrt(variance) * torch.linspace(-12, 12, 20_001, dtype=torch.float64)
                p = log_density(grid, mean, math.log(variance))
                q = log_density(grid, guess, log_variance)
                bits.append(float(torch.trapezoid(p.exp() * (p - q), grid)) / math.log(2))
            else:  # the mean is the estimate: the clean token has no noise before it

                def cdf(edge: float, mean: float = estimate, log_variance: float = log_variance) -> float:
                    u = (edge - mean) / math.exp(log_variance / 2)
                    return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))

                low = 0.0 if token < -0.999 else cdf(token - 1 / 255)
                high = 1.0 if token > 0.999 else cdf(token + 1 / 255)
                bits.append(-math.log2(max(high - low, 1e-12)))
        assert float(mse[row]) == pytest.approx(sum(squares) / D, rel=1e-10)
        assert float(bound[row]) == pytest.approx(sum(bits) / D, rel=1e-6)


def test_every_pair_has_its_own_uniform_times_and_normal_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that fail right code once in ten thousand seeds; the seed is fixed."""
    head, seen = DiffusionHead(D, C, width=8, depth=1, num_noise_draws=4), []
    terms = head.loss_terms

    def spy(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        seen.extend([*arguments, *terms(*arguments)])
        return seen[4], seen[5]

    monkeypatch.setattr(head, "loss_terms", spy)
    z, x = torch.randn(5000, C), torch.randn(5000, D)
    losses = head.loss(z, x, torch.Generator().manual_seed(0))
    t, noise = seen[2].view(4, 5000), seen[3].view(4, 5000, D)
    assert torch.equal(seen[0], z.repeat(4, 1)) and torch.equal(seen[1], x.repeat(4, 1))
    assert t.min() >= 0 and t.max() == 999
    assert stats.chisquare(torch.bincount(t.flatten() // 20, minlength=50).numpy()).pvalue > 1e-4
    assert stats.kstest(noise.flatten().numpy(), stats.norm.cdf).pvalue > 1e-4
    for first, second in combinations(range(4), 2):
        assert float((t[first] == t[second]).float().mean()) < 0.01
        assert abs(float((noise[first] * noise[second]).mean())) < 4 / math.sqrt(5000 * D)
    torch.testing.assert_close(losses, (seen[4] + seen[5]).view(4, 5000).mean(dim=0))


def test_bins_of_the_likelihood_cover_everything_once() -> None:
    centres = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mean, log_scale = torch.tensor(0.2, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    total = discretised_log_likelihood(centres, mean, log_scale).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-9)


@torch.no_grad()
def test_an_untrained_head_has_the_loss_that_theory_says() -> None:
    """Zero output: squared error |noise|^2; the bound is linear in it, with the mid variance and x_0 = x_t / signal."""
    head, (betas, alpha_bar) = DiffusionHead(D, C, width=16, depth=1).double(), written_out()
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(999, D, generator=generator, dtype=torch.float64) for _ in range(2))
    mse, bound = head.loss_terms(torch.zeros(999, C, dtype=torch.float64), x, torch.arange(1, 1000), noise)
    torch.testing.assert_close(mse, noise.square().mean(dim=-1), rtol=1e-12, atol=0)
    expected = []  # bits at t = 1 .. 999, where E|noise|^2 = 1
    for t, square in enumerate(noise.square().mean(dim=-1).tolist(), start=1):
        small = posterior(t, 0.0, 0.0)[1]
        half_ratio = math.log(betas[t] / small) / 2  # log of the mid variance over the posterior's
        pull = posterior(t, 1.0, 0.0)[0]  # weight of x_0 in the mean
        slope = pull**2 * (1 - alpha_bar[t]) / alpha_bar[t] / math.sqrt(betas[t] * small)
        constant = half_ratio - 1 + math.exp(-half_ratio)
        assert float(bound[t - 1]) == pytest.approx(0.5 * (constant + slope * square) / math.log(2), rel=1e-6)
        expected.append(0.5 * (constant + slope) / math.log(2))
    # And on average, as training draws its times; t = 0 takes between 0 and 40 bits (the floor) once in a thousand.
    losses = head.loss(torch.zeros(20_000, C).double(), torch.randn(20_000, D, generator=generator).double(), generator)
    theory, error = 1 + sum(expected) / 1000, float(losses.std()) / math.sqrt(len(losses))
    assert theory - 4 * error < float(losses.mean()) < theory + 0.04 + 4 * error
    assert error < 0.2


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


class AnalyticDenoiser(Denoiser):
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
    sampling = DiffusionSampling(num_steps=num_steps, solver=solver, temperature=temperature)
    noise = torch.randn(samples, head.num_draws(sampling), D, generator=torch.Generator().manual_seed(0))
    return head.sample(torch.zeros(samples, C), noise, sampling)


@pytest.mark.parametrize("solver", DiffusionSampling.solvers)
def test_the_sampler_recovers_a_gaussian(solver: str) -> None:
    mean = torch.tensor([0.5, -1.0])
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
    x = draw(AnalyticDenoiser(torch.ones(1), mean[None], covariance[None]), num_steps=200, solver=solver)
    assert (x.mean(dim=0) - mean).abs().max() < 4 / math.sqrt(len(x))
    assert (x.T.cov() - covariance).abs().max() < 4 * math.sqrt(2 / len(x)) + 0.02  # 0.02: of 200 steps


@pytest.mark.parametrize("solver", DiffusionSampling.solvers)
def test_the_sampler_recovers_the_weights_of_a_mixture(solver: str) -> None:
    weights, means = torch.tensor([0.3, 0.7]), torch.tensor([[-1.5, 0.0], [1.5, 0.5]])
    covariances = torch.tensor([[[0.10, 0.03], [0.03, 0.05]], [[0.06, -0.04], [-0.04, 0.12]]])
    x = draw(AnalyticDenoiser(weights, means, covariances), num_steps=200, solver=solver)
    right = x[:, 0] > 0
    assert float(right.float().mean()) == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / len(x)) + 0.01)
    for component, part in enumerate((x[~right], x[right])):
        largest = float(covariances[component].max())
        assert (part.mean(dim=0) - means[component]).abs().max() < 4 * math.sqrt(largest / len(part)) + 0.01
        error = 4 * largest * math.sqrt(2 / len(part)) + 0.01  # 0.01: of 200 steps, as above
        assert (part.T.cov() - covariances[component]).abs().max() < error


@pytest.mark.parametrize("v", [-1.0, 0.0, 0.5, 1.0])
def test_a_step_of_ancestral_sampling_is_the_posterior_written_out(v: float) -> None:
    """Two steps with a network of known outputs: mean by Bayes, log variance between beta-tilde and beta."""
    noise = torch.tensor([[[0.8], [-1.3]]], dtype=torch.float64)
    x = SOLVERS["ancestral"](
        FULL.respaced(2), lambda x, t: (0.5 * x, x * 0 + v), noise, DiffusionSampling(num_steps=2, temperature=0.7)
    )
    betas, alpha_bar = written_out(2)

    def estimate(x: float, k: int) -> float:
        return (x - math.sqrt(1 - alpha_bar[k]) * 0.5 * x) / math.sqrt(alpha_bar[k])

    mean, small = posterior(1, estimate(0.8, 1), 0.8, num_steps=2)
    deviation = math.exp(((v + 1) / 2 * math.log(betas[1]) + (1 - v) / 2 * math.log(small)) / 2)
    assert float(x) == pytest.approx(estimate(mean + 0.7 * deviation * -1.3, 0), rel=1e-7)  # 1 - beta is 2e-9


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
def test_the_temperature_of_a_deterministic_solver_scales_its_start(solver: str) -> None:
    """The flow of a centred Gaussian is linear, so that the whole token is scaled."""
    denoiser = AnalyticDenoiser(torch.ones(1), torch.zeros(1, D), torch.eye(D)[None])
    cold, warm = (draw(denoiser, 20, 100, temperature, solver) for temperature in (0.5, 1.0))
    torch.testing.assert_close(cold, 0.5 * warm, rtol=1e-3, atol=1e-5)


def test_temperature_narrows_the_distribution() -> None:
    denoiser = AnalyticDenoiser(torch.ones(1), torch.zeros(1, D), torch.eye(D)[None])
    spreads = [float(draw(denoiser, 50, 2000, temperature).std()) for temperature in (0.0, 0.5, 1.0)]
    assert spreads[0] < spreads[1] < spreads[2]

"""Every solver with exact scores, beside published code, and its accuracy by the number of steps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from mntp.heads import DiffusionSampling
from mntp.heads.schedules import DiffusionSchedule
from mntp.heads.solvers import SOLVERS, kept_steps
from tests.mntp.heads.exact_scores import TRAINING, Mixture, draw, normal_noise

STEPS = (6, 8, 12, 25, 50)
SHARES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
NOT_MAR = ("ddim", "dpmpp_2m", "sde_dpmpp_2m")
FINE = DiffusionSchedule.cosine(20_000)  # with 1000 steps, rounding to the nearest one hides the order
GAUSSIAN = ([1.0], [0.7], [0.4])
MIXTURE = ([0.35, 0.65], [-0.9, 0.6], [0.4, 0.5])
# Largest relative error of the standard deviation and largest absolute error of a quantile of the mixture, at the
# numbers of steps in STEPS. DDIM is of first order; 1 % is what beginning at MIN_SIGNAL costs, at any number of steps.
DEVIATION = {
    "ddim": (0.18, 0.14, 0.095, 0.045, 0.022),
    "dpmpp_2m": (0.065, 0.03, 0.01, 0.01, 0.01),
    "sde_dpmpp_2m": (0.05, 0.025, 0.05, 0.03, 0.015),
}
QUANTILE = {
    "ddim": (0.16, 0.12, 0.075, 0.03, 0.015),
    "dpmpp_2m": (0.05, 0.025, 0.01, 0.01, 0.015),
    "sde_dpmpp_2m": (0.06, 0.035, 0.03, 0.025, 0.025),
}


def tokens(network: Mixture, solver: str, steps: int) -> Tensor:
    """20,000 tokens; of a deterministic solver 4,000, mapped from evenly spaced quantiles without sampling error."""
    noise = normal_noise(20_000, steps) if solver == "sde_dpmpp_2m" else normal_noise(4_000, 1)
    return draw(network, DiffusionSampling(num_steps=steps, solver=solver), noise)


@pytest.mark.parametrize("solver", NOT_MAR)
@pytest.mark.parametrize("steps", STEPS)
def test_a_gaussian_has_its_mean_and_deviation_at_few_steps(solver: str, steps: int) -> None:
    network = Mixture(*GAUSSIAN)
    x, (mean, deviation) = tokens(network, solver, steps), network.moments()
    sampling_error = 4 * deviation / math.sqrt(len(x)) if solver == "sde_dpmpp_2m" else 0.0
    assert float(x.mean()) == pytest.approx(mean, abs=0.0015 + sampling_error)
    assert float(x.std()) == pytest.approx(deviation, rel=DEVIATION[solver][STEPS.index(steps)] + sampling_error)


@pytest.mark.parametrize("solver", NOT_MAR)
@pytest.mark.parametrize("steps", STEPS)
def test_a_mixture_has_its_quantiles_at_few_steps(solver: str, steps: int) -> None:
    network = Mixture(*MIXTURE)
    x = tokens(network, solver, steps)
    found = torch.quantile(x, torch.tensor(SHARES, dtype=torch.float64)).tolist()
    expected = [network.quantile(share) for share in SHARES]
    assert found == pytest.approx(expected, abs=QUANTILE[solver][STEPS.index(steps)])
    assert float(x.mean()) == pytest.approx(network.moments()[0], abs=0.045 / math.sqrt(steps / 6))


@pytest.mark.parametrize("solver", NOT_MAR)
@pytest.mark.parametrize(
    ("scale", "errors"),
    # Steps are spaced for 0.5. Narrower tokens need more of them; wider ones pay for the first step.
    [
        (0.1, (0.43, 0.34, 0.24, 0.12, 0.065)),
        (1.0, (0.17, 0.13, 0.08, 0.03, 0.025)),
        (2.0, (0.2, 0.14, 0.08, 0.05, 0.06)),
    ],
)
def test_the_deviation_of_other_gaussians(solver: str, scale: float, errors: tuple[float, ...]) -> None:
    for steps, error in zip(STEPS, errors, strict=True):
        x = tokens(Mixture([1.0], [0.7], [scale]), solver, steps)
        assert float(x.std()) == pytest.approx(scale, rel=error), steps


def diffusers_dpm(schedule: DiffusionSchedule, algorithm: str) -> Any:
    """Their DPM-Solver++ (2M) on the steps of our schedule; its own tables are in single precision, so it gets ours."""
    scheduler: Any = DPMSolverMultistepScheduler(
        schedule.num_steps, trained_betas=schedule.betas.numpy(), algorithm_type=algorithm, final_sigmas_type="zero"
    )
    scheduler.set_timesteps(timesteps=list(reversed(range(schedule.num_steps))))
    sigmas = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()
    scheduler.sigmas = torch.cat([sigmas.flip(0), torch.zeros(1, dtype=torch.float64)])
    return scheduler


def diffusers_ddim(schedule: DiffusionSchedule) -> Any:
    scheduler: Any = DDIMScheduler(
        schedule.num_steps, trained_betas=schedule.betas.numpy(), clip_sample=False, timestep_spacing="linspace"
    )
    scheduler.set_timesteps(schedule.num_steps)
    scheduler.alphas_cumprod = schedule.alpha_bar
    return scheduler


def walk(scheduler: Any, schedule: DiffusionSchedule, predict: Callable[..., Any], noise: Tensor) -> Tensor:
    """Walk the steps with a scheduler of diffusers, from our start: the first estimate under the drawn noise."""
    last = schedule.num_steps - 1
    alpha, sigma = float(schedule.alpha_bar[last].sqrt()), float((1 - schedule.alpha_bar[last]).sqrt())
    eps = noise[:, 0]
    x = alpha * (eps - sigma * predict(eps, last)[0]) / alpha + sigma * eps
    for step, k in enumerate(reversed(range(schedule.num_steps))):
        eps = predict(x, k)[0] if step else eps
        options = {"variance_noise": noise[:, min(step + 1, noise.shape[1] - 1)]} if noise.shape[1] > 1 else {}
        x = scheduler.step(eps, torch.tensor(k), x, **options).prev_sample
    return x


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside of diffusers
@pytest.mark.parametrize("solver", NOT_MAR)
@pytest.mark.parametrize("steps", [2, 3, 6, 8, 25, 50])
@pytest.mark.parametrize("spacing", ["kept_steps", "respaced"])
def test_the_steps_are_those_of_diffusers(solver: str, steps: int, spacing: str) -> None:
    schedule = kept_steps(TRAINING, solver, steps) if spacing == "kept_steps" else TRAINING.respaced(steps)
    network, noise = Mixture(*MIXTURE), normal_noise(50, steps if solver == "sde_dpmpp_2m" else 1)[:, :, None]

    def predict(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        eps = network.noise(x, float(schedule.alpha_bar[k]))
        return eps, eps

    ours = SOLVERS[solver](schedule, predict, noise, DiffusionSampling(num_steps=steps))
    names = {"dpmpp_2m": "dpmsolver++", "sde_dpmpp_2m": "sde-dpmsolver++"}
    scheduler = diffusers_dpm(schedule, names[solver]) if solver in names else diffusers_ddim(schedule)
    torch.testing.assert_close(ours, walk(scheduler, schedule, predict, noise), rtol=0, atol=1e-6)


def spaced_by_log_snr(steps: int) -> DiffusionSchedule:
    """Steps of equal length in log w, at which the error is a clean power of the length."""
    log_snr = torch.log(FINE.alpha_bar / (1 - FINE.alpha_bar))
    wanted = torch.linspace(6.0, -5.0, steps, dtype=torch.float64)
    kept = (log_snr - wanted[:, None]).abs().argmin(dim=1)
    alpha_bar = FINE.alpha_bar[kept]
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    return DiffusionSchedule.from_betas(1 - alpha_bar / before, kept)


def linear_error(solver: str, steps: int, scale: float) -> float:
    """Distance from the exact solution for N(0, scale^2).

    Let r = sqrt(alpha-bar / (1 - alpha-bar)) and u = x / sqrt(1 - alpha-bar). The best estimate of x_0 is p u / r with
    p = scale^2 r^2 / (scale^2 r^2 + 1); by log r, the flow is u' = p u and u grows as sqrt(scale^2 r^2 + 1). Tokens are
    linear in all draws, so that a draw of 1 at a time gives the deviation of the SDE's tokens without sampling error.
    """
    schedule = spaced_by_log_snr(steps)
    ratio, sigma = (schedule.alpha_bar / (1 - schedule.alpha_bar)).sqrt(), (1 - schedule.alpha_bar).sqrt()
    share = scale**2 * ratio**2 / (scale**2 * ratio**2 + 1)

    def predict(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return (1 - share[k]) * x / sigma[k], x

    draws = steps if solver == "sde_dpmpp_2m" else 1
    noise = torch.eye(draws, dtype=torch.float64)[:, :, None]
    x = SOLVERS[solver](schedule, predict, noise, DiffusionSampling(num_steps=steps))
    # What the last step, of first order and always the same, leaves out: the estimate at w is this much too narrow.
    landing = (scale**2 * ratio[0] ** 2 / (scale**2 * ratio[0] ** 2 + 1)).sqrt()
    if solver == "sde_dpmpp_2m":
        return abs(float(x.square().sum().sqrt() / landing) - scale)
    grown = (scale**2 * ratio**2 + 1).sqrt()
    u = (share[-1] / sigma[-1] + 1) * grown[0] / grown[-1]  # the start: the first estimate under the noise
    return abs(float(x - share[0] * u / ratio[0]))


@pytest.mark.parametrize("scale", [0.3, 0.7])
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("sde_dpmpp_2m", 2)])
def test_the_order_of_a_solver(solver: str, order: int, scale: float) -> None:
    errors = [linear_error(solver, steps, scale) for steps in (50, 100, 200)]
    rates = [math.log2(errors[i] / errors[i + 1]) for i in (0, 1)]
    assert rates == pytest.approx([order, order], abs=0.3)


@pytest.mark.parametrize("solver", NOT_MAR)
@pytest.mark.parametrize("steps", [8, 25, 100])
def test_a_networks_error_is_not_magnified(solver: str, steps: int) -> None:
    """With 0.05 cos(5 x) added to the predicted noise, tokens move by a few times that and not by thousands."""
    sampling = DiffusionSampling(num_steps=steps, solver=solver)
    noise = normal_noise(2000, steps if solver == "sde_dpmpp_2m" else 1)
    exact, wrong = (draw(Mixture([1.0], [0.0], [1.0], error), sampling, noise) for error in (0.0, 0.05))
    assert float((wrong - exact).square().mean().sqrt()) < 5 * 0.05


def test_the_first_step_puts_its_estimate_under_the_drawn_noise() -> None:
    """Three steps of DDIM written out; a network that claims tokens of its own."""
    schedule, seen = TRAINING.spaced_by_angle(3), list[Tensor]()
    alpha, sigma = schedule.alpha_bar.sqrt().tolist(), (1 - schedule.alpha_bar).sqrt().tolist()
    noise = torch.tensor([[[0.3, -1.0]], [[0.5, 0.2]]], dtype=torch.float64)
    claimed = torch.tensor([[[0.7, -0.4], [0.6, 0.9]], [[0.8, 0.1], [-0.3, 0.6]], [[3, -1], [0.2, -1.1]]]).double()

    def predict(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        seen.append(x)
        return (x - alpha[k] * claimed[k]) / sigma[k], x

    x = SOLVERS["ddim"](schedule, predict, noise, DiffusionSampling(num_steps=3))
    x_1 = alpha[1] * claimed[2] + sigma[1] * noise[:, 0]
    x_0 = alpha[0] * claimed[1] + sigma[0] * (x_1 - alpha[1] * claimed[1]) / sigma[1]
    for found, expected in zip([*seen, x], [noise[:, 0], x_1, x_0, claimed[0]], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
def test_a_constant_error_at_the_noisy_end_moves_tokens_by_less_than_itself(solver: str) -> None:
    """0.2 too much in the predicted noise of the noisier half of the way, tokens N(0, 0.5^2)."""
    network, noise = Mixture([1.0], [0.0], [0.5]), normal_noise(500, 1)[:, :, None]
    schedule = kept_steps(TRAINING, solver, 25)

    def drawn(error: float) -> Tensor:
        def predict(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
            alpha_bar = float(schedule.alpha_bar[k])
            return network.noise(x, alpha_bar) + error * (alpha_bar < 0.1), x

        return SOLVERS[solver](schedule, predict, noise, DiffusionSampling(num_steps=25))

    moved = float((drawn(-0.2) - drawn(0.0)).mean())
    assert 0 < moved < 0.2


@pytest.mark.parametrize("steps", [2, 6, 25, 100, 500, 869, 870, 990, 1000])
def test_steps_spaced_by_angle(steps: int) -> None:
    kept = TRAINING.spaced_by_angle(steps)
    times = kept.timesteps
    assert len(times) == steps and (times.diff() > 0).all()
    torch.testing.assert_close(kept.alpha_bar, TRAINING.alpha_bar[times], rtol=1e-7, atol=0)
    if steps <= 860:
        last = int(times[-1])
        assert float(TRAINING.alpha_bar[last].sqrt()) >= 0.2 > float(TRAINING.alpha_bar[last + 1].sqrt())
    if steps <= 50:
        angles = torch.atan(2 * ((1 - kept.alpha_bar) / kept.alpha_bar).sqrt())
        expected = float(angles[-1]) / steps
        assert torch.cat([angles[:1], angles.diff()]).tolist() == pytest.approx([expected] * steps, abs=0.0035)


@pytest.mark.parametrize("solver", [*NOT_MAR, "ancestral"])
@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_senseless_numbers_of_steps(solver: str, steps: int) -> None:
    with pytest.raises(ValueError, match=rf"^decoding.sampling.num_steps: expected 2 to 1000, got {steps}$"):
        kept_steps(TRAINING, solver, steps)


def test_ancestral_sampling_keeps_the_steps_of_mar() -> None:
    assert torch.equal(kept_steps(TRAINING, "ancestral", 25).timesteps, TRAINING.respaced(25).timesteps)

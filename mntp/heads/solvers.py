"""Ways from noise to a token with a noise-predicting network: ancestral sampling, DDIM, DPM-Solver++ (2M) and its SDE.

All walk the same respaced steps k = S - 1 .. 0 and land, at alpha-bar = 1, on the last estimate of the token.
M tokens, D values of a token, S steps.
"""

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from mntp.heads.base import HeadSampling
from mntp.heads.schedules import DiffusionSchedule

# (x_k [M, D], step k of the schedule) -> predicted noise and variance output, both [M, D].
Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class Solver(Protocol):
    """Draws tokens [M, D] from noise [M, draws, D]."""

    def __call__(self, schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: HeadSampling) -> Tensor:
        """Walk the steps of `schedule`."""
        ...


def ancestral(schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: HeadSampling) -> Tensor:
    """DDPM with a learned variance range (arXiv 2006.11239, algorithm 2; 2102.09672, eq. 15), as in MAR and the paper.

    Takes S draws: the starting noise and one for each step but the last. The temperature multiplies the latter.
    """
    x = noise[:, 0]
    for draw, k in enumerate(reversed(range(schedule.num_steps)), start=1):
        x_0, _, v = _estimate(schedule, predict, x, k, sampling.x0_limit)
        x = float(schedule.posterior_mean_x0[k]) * x_0 + float(schedule.posterior_mean_xt[k]) * x
        if k > 0:
            low, high = float(schedule.posterior_log_variance[k]), math.log(float(schedule.betas[k]))
            fraction = (v + 1) / 2
            log_variance = fraction * high + (1 - fraction) * low
            x = x + sampling.temperature * (0.5 * log_variance).exp() * noise[:, draw]
    return x


def ddim(schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: HeadSampling) -> Tensor:
    """DDIM with eta 0 (arXiv 2010.02502, eq. 12), of first order on the probability flow.

    Takes one draw, the starting noise; the temperature multiplies it.
    """
    x = sampling.temperature * noise[:, 0]
    for k in reversed(range(schedule.num_steps)):
        x_0, eps, _ = _estimate(schedule, predict, x, k, sampling.x0_limit)
        alpha, sigma = _signal_and_noise(schedule, k - 1)
        x = alpha * x_0 + sigma * eps
    return x


def dpmpp_2m(schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: HeadSampling) -> Tensor:
    """DPM-Solver++ (2M) on the estimate of x_0 (arXiv 2211.01095, algorithm 2): second order, one call a step.

    The first step and the last are of first order. Takes one draw, the starting noise; the temperature multiplies it.
    """
    return _multistep(schedule, predict, sampling.temperature * noise[:, 0], sampling, draws=None)


def sde_dpmpp_2m(schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: HeadSampling) -> Tensor:
    """SDE-DPM-Solver++ (2M) (arXiv 2211.01095, eq. 19): the same for the reverse diffusion, with fresh noise each step.

    Takes S draws: the starting noise and one for each step but the last. The temperature multiplies the latter.
    """
    return _multistep(schedule, predict, noise[:, 0], sampling, draws=sampling.temperature * noise[:, 1:])


SOLVERS: dict[str, Solver] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "sde_dpmpp_2m": sde_dpmpp_2m,
}
STOCHASTIC = ("ancestral", "sde_dpmpp_2m")


def _multistep(
    schedule: DiffusionSchedule, predict: Predict, x: Tensor, sampling: HeadSampling, draws: Tensor | None
) -> Tensor:
    """Extrapolate x_0 from its last two estimates; by the flow or, with draws [M, S - 1, D], by the SDE."""
    x_0, _, _ = _estimate(schedule, predict, x, schedule.num_steps - 1, sampling.x0_limit)
    previous, previous_h = x_0, math.inf  # makes the first step one of first order
    for draw, k in enumerate(reversed(range(schedule.num_steps - 1))):
        alpha, sigma = _signal_and_noise(schedule, k + 1)
        next_alpha, next_sigma = _signal_and_noise(schedule, k)
        h = math.log(next_alpha / next_sigma) - math.log(alpha / sigma)  # in half the log signal-to-noise ratio
        slope = h / (2 * previous_h)
        target = (1 + slope) * x_0 - slope * previous
        if draws is None:
            x = next_sigma / sigma * x - next_alpha * math.expm1(-h) * target
        else:
            share = -math.expm1(-2 * h)  # of the noise that is drawn anew
            x = next_sigma / sigma * math.exp(-h) * x + next_alpha * share * target
            x = x + next_sigma * math.sqrt(share) * draws[:, draw]
        previous, previous_h = x_0, h
        x_0, _, _ = _estimate(schedule, predict, x, k, sampling.x0_limit)
    return x_0


def _signal_and_noise(schedule: DiffusionSchedule, k: int) -> tuple[float, float]:
    """Square roots of alpha-bar and 1 - alpha-bar at step k; step -1 is the clean token."""
    if k < 0:
        return 1.0, 0.0
    alpha_bar = float(schedule.alpha_bar[k])
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


def _estimate(
    schedule: DiffusionSchedule, predict: Predict, x: Tensor, k: int, x0_limit: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate of x_0, the noise that goes with it, and the variance output, at x_k."""
    eps, v = predict(x, k)
    alpha, sigma = _signal_and_noise(schedule, k)
    x_0 = (x - sigma * eps) / alpha
    if x0_limit is not None:
        x_0 = x_0.clamp(-x0_limit, x0_limit)
        eps = (x - alpha * x_0) / sigma
    return x_0, eps, v

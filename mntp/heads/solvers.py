"""Sampling a token with a noise-predicting network: ancestral sampling, DDIM, DPM-Solver++ (2M) and its SDE.

`ancestral` is MAR's sampler, step for step. The other three share the steps that they keep and the way they start,
which `kept_steps` explains. M tokens, D values of a token, S steps, numbered k = S - 1 (most noise) .. 0.
"""

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from mntp.heads.schedules import DiffusionSchedule
from mntp.heads.settings import SolverSampling

# (x_k [M, D], step k of the schedule) -> predicted noise and variance output, both [M, D].
Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class Solver(Protocol):
    """Draws tokens [M, D] from noise [M, draws, D]."""

    def __call__(
        self, schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: SolverSampling
    ) -> Tensor:
        """Walk the steps of `schedule`."""
        ...


def kept_steps(training: DiffusionSchedule, solver: str, num_steps: int) -> DiffusionSchedule:
    """The steps of the training schedule at which a solver calls the network.

    `ancestral` keeps evenly spaced time steps, as MAR does. The other solvers use w = sqrt((1 - alpha-bar) /
    alpha-bar):

    *Spacing.* Along the probability flow from the noise n, the estimate of a token of N(m, s^2) is m + s cos(a) n with
    the angle a = atan(w / s). It changes as the angle does, from pi / 2 (noise) to 0 (token). The steps are therefore
    evenly spaced in the angle, with s = SPREAD for what a context leaves open about a token of unit variance. EDM
    takes 0.5 for the same quantity (arXiv 2206.00364). With s = 1, which is the cosine schedule's own time, the last
    of 8 steps would be too early for tokens with s = 0.4. Steps evenly spaced in log w suit all s alike, but half of 8
    steps then lie where a token is finished.

    *The clean end.* Evenly spaced time steps reach t = 0 by a step in log w several times as long as the one before
    it, and DPM-Solver++, which takes the estimate to be linear in log w, extrapolates far beyond its data. Here t = 0
    is not among the steps. The token is the estimate of the last one, by a step of first order, as with
    `lower_order_final` in other implementations.

    *The noisy end.* An error e of the predicted noise is an error e w of the estimate. A step from w to w' adds e (w /
    w' - 1) to the noise in the next x. At t = 999, where w is 2e4, the network's error would replace the drawn noise,
    and a deterministic solver would never get rid of it. The first step is therefore the last time with
    sqrt(alpha-bar) >= MIN_SIGNAL; DPM-Solver clips the cosine schedule for the same reason. The network estimates x_0
    there from the drawn noise alone, and x is then that noise with the estimate under it. This adds e once. What is
    left out is of second order in MIN_SIGNAL.

    Args:
        training: all steps of training.
        solver: name of the solver.
        num_steps: S, 2 or more.

    Raises:
        ValueError: fewer than 2 steps, or more than the schedule has.
    """
    return training.respaced(num_steps) if solver == "ancestral" else training.spaced_by_angle(num_steps)


def ancestral(schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: SolverSampling) -> Tensor:
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


def ddim(schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: SolverSampling) -> Tensor:
    """DDIM with eta 0 (arXiv 2010.02502, eq. 12), of first order on the probability flow.

    Takes one draw, the starting noise; the temperature multiplies it.
    """
    eps = sampling.temperature * noise[:, 0]
    x_0, _, _ = _estimate(schedule, predict, eps, schedule.num_steps - 1, sampling.x0_limit)
    for k in reversed(range(schedule.num_steps - 1)):
        alpha, sigma = _signal_and_noise(schedule, k)
        x_0, eps, _ = _estimate(schedule, predict, alpha * x_0 + sigma * eps, k, sampling.x0_limit)
    return x_0


def dpmpp_2m(schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: SolverSampling) -> Tensor:
    """DPM-Solver++ (2M) on the estimate of x_0 (arXiv 2211.01095, algorithm 2): second order, one call a step.

    The first step and the last are of first order. Takes one draw, the starting noise; the temperature multiplies it.
    """
    return _multistep(schedule, predict, sampling.temperature * noise[:, 0], sampling, draws=None)


def sde_dpmpp_2m(schedule: DiffusionSchedule, predict: Predict, noise: Tensor, sampling: SolverSampling) -> Tensor:
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
    schedule: DiffusionSchedule, predict: Predict, start: Tensor, sampling: SolverSampling, draws: Tensor | None
) -> Tensor:
    """Extrapolate x_0 from its last two estimates; by the flow or, with draws [M, S - 1, D], by the SDE."""
    last = schedule.num_steps - 1
    x_0, _, _ = _estimate(schedule, predict, start, last, sampling.x0_limit)
    alpha, sigma = _signal_and_noise(schedule, last)
    x = alpha * x_0 + sigma * start
    previous, previous_h = x_0, math.inf  # makes the first step one of first order
    for draw, k in enumerate(reversed(range(last))):
        next_alpha, next_sigma = _signal_and_noise(schedule, k)
        h = math.log(next_alpha / next_sigma) - math.log(alpha / sigma)
        slope = h / (2 * previous_h)
        target = (1 + slope) * x_0 - slope * previous
        if draws is None:
            x = next_sigma / sigma * x - next_alpha * math.expm1(-h) * target
        else:
            share = -math.expm1(-2 * h)  # of the noise that is drawn anew
            x = next_sigma / sigma * math.exp(-h) * x + next_alpha * share * target
            x = x + next_sigma * math.sqrt(share) * draws[:, draw]
        previous, previous_h, alpha, sigma = x_0, h, next_alpha, next_sigma
        x_0, _, _ = _estimate(schedule, predict, x, k, sampling.x0_limit)
    return x_0


def _signal_and_noise(schedule: DiffusionSchedule, k: int) -> tuple[float, float]:
    """Square roots of alpha-bar and 1 - alpha-bar at step k."""
    alpha_bar = float(schedule.alpha_bar[k])
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


def _estimate(
    schedule: DiffusionSchedule, predict: Predict, x: Tensor, k: int, x0_limit: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate of x_0, clamped to +-x0_limit, the noise that goes with it, and the variance output, at x_k [M, D]."""
    eps, v = predict(x, k)
    alpha, sigma = _signal_and_noise(schedule, k)
    x_0 = (x - sigma * eps) / alpha
    if x0_limit is not None:
        x_0 = x_0.clamp(-x0_limit, x0_limit)
        eps = (x - alpha * x_0) / sigma
    return x_0, eps, v

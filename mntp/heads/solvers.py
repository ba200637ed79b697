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

    `ancestral` keeps evenly spaced time steps, as MAR does. The other solvers need other steps at both ends:

    *The clean end.* Write lambda for log(sqrt(alpha-bar) / sqrt(1 - alpha-bar)), half the log signal-to-noise ratio.
    DPM-Solver++ takes the estimate of x_0 to be a polynomial in lambda. On evenly spaced time steps the last step is
    several times as long in lambda as the one before it, and the solver extrapolates far beyond its data. Evenly
    spaced lambdas avoid that (arXiv 2206.00927, section 3.4). The very last step, from the last kept time to the clean
    token, is infinitely long in lambda and therefore of first order, as `lower_order_final` of other implementations.

    *The noisy end.* An error e of the predicted noise is an error of e sqrt(1 - alpha-bar) / sqrt(alpha-bar) in the
    estimate of x_0. A step of length h adds e (exp(h) - 1) of it to the next x. On evenly spaced time steps the first
    step goes from sqrt(alpha-bar) = 5e-5 to 0.06 (25 steps), where exp(h) is above 1000: the network's error replaces
    the drawn noise, and a deterministic solver never gets rid of it. Three things keep the error small:

    - With evenly spaced lambdas the factor is the same in all steps and falls with their number.
    - The first step leads from the noisiest time, where next to nothing can be known about the token, straight to the
      first time with sqrt(alpha-bar) >= MIN_SIGNAL. DPM-Solver clips the cosine schedule for the same reason. What is
      left out is of second order in MIN_SIGNAL.
    - Estimates are shrunk by the network's error, which that first step shows: tokens have unit variance, so that
      nothing that can be known about one has a mean square above 1 (over its D values). What the first estimate has
      above it is the error, times (1 - alpha-bar) / alpha-bar, and gives e^2. From an estimate with the error variance
      e^2 (1 - alpha-bar) / alpha-bar and the prior N(0, 1), the posterior mean of a token is
      x_0 / (1 + e^2 (1 - alpha-bar) / alpha-bar): close to 0 in the first step, unless the network is nearly perfect,
      and close to x_0 once the signal is well above e. A network without error is not touched. Guidance magnifies e and
      is counted in, as the estimate is the guided one.

    Args:
        training: all steps of training.
        solver: name of the solver.
        num_steps: S, 2 or more.

    Raises:
        ValueError: fewer than 2 steps, or more than the schedule has.
    """
    return training.respaced(num_steps) if solver == "ancestral" else training.spaced_by_log_snr(num_steps)


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
    x_0, error = _start(schedule, predict, eps, sampling.x0_limit)
    for k in reversed(range(schedule.num_steps - 1)):
        alpha, sigma = _signal_and_noise(schedule, k)
        x_0, eps, _ = _estimate(schedule, predict, alpha * x_0 + sigma * eps, k, sampling.x0_limit, error)
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
    x_0, error = _start(schedule, predict, start, sampling.x0_limit)
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
        x_0, _, _ = _estimate(schedule, predict, x, k, sampling.x0_limit, error)
    return x_0


def _start(
    schedule: DiffusionSchedule, predict: Predict, noise: Tensor, x0_limit: float | None
) -> tuple[Tensor, Tensor]:
    """Estimate of x_0 [M, D] from noise alone, and the mean squared error [M, 1] of the predicted noise.

    See `kept_steps`: what the estimate's mean square has above 1 is the network's error, magnified.
    """
    k = schedule.num_steps - 1
    x_0, _, _ = _estimate(schedule, predict, noise, k, x0_limit)
    alpha, sigma = _signal_and_noise(schedule, k)
    excess = (x_0.square().mean(dim=1, keepdim=True) - 1).clamp(min=0)
    return x_0 / (1 + excess), excess * (alpha / sigma) ** 2


def _signal_and_noise(schedule: DiffusionSchedule, k: int) -> tuple[float, float]:
    """Square roots of alpha-bar and 1 - alpha-bar at step k."""
    alpha_bar = float(schedule.alpha_bar[k])
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


def _estimate(
    schedule: DiffusionSchedule,
    predict: Predict,
    x: Tensor,
    k: int,
    x0_limit: float | None,
    error: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate of x_0, the noise that goes with it, and the variance output, at x_k.

    Args:
        schedule: the kept steps.
        predict: the network.
        x: x_k [M, D].
        k: the step.
        x0_limit: see SolverSampling.
        error: mean squared error of the predicted noise [M, 1], to shrink the estimate by; None trusts the network.
    """
    eps, v = predict(x, k)
    alpha, sigma = _signal_and_noise(schedule, k)
    x_0 = (x - sigma * eps) / alpha
    if x0_limit is not None:
        x_0 = x_0.clamp(-x0_limit, x0_limit)
    if error is not None:
        x_0 = x_0 / (1 + error * (sigma / alpha) ** 2)
    if x0_limit is not None or error is not None:
        eps = (x - alpha * x_0) / sigma
    return x_0, eps, v

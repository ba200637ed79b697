"""Noise schedules of Gaussian diffusion as plain tables: cosine betas, posterior coefficients, respacing.

All tables are float64 and derived from the betas by the formulas of arXiv 2006.11239 (DDPM) and 2102.09672
(improved DDPM: cosine schedule, learned variance range), which MAR's head uses unchanged.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

COSINE_OFFSET = 0.008
MAX_BETA = 0.999
MIN_SIGNAL = 0.2  # least square root of alpha-bar at which solvers other than MAR's call the network
SPREAD = 0.5  # standard deviation that a token is taken to have, given its context, where steps are spaced


@functools.cache
def table_on(table: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A schedule's table on a device, copied there once: each copy from the host would wait for the device."""
    return table.to(device, dtype)


def cosine_betas(num_steps: int) -> Tensor:
    """Betas [num_steps] of the cosine schedule (2102.09672, eq. 17), each at most 0.999."""

    def alpha_bar(t: float) -> float:
        return math.cos((t + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2

    betas = [min(1 - alpha_bar((i + 1) / num_steps) / alpha_bar(i / num_steps), MAX_BETA) for i in range(num_steps)]
    return torch.tensor(betas, dtype=torch.float64)


@dataclass(frozen=True)
class DiffusionSchedule:
    """Tables of one schedule, each [S] float64 and indexed by the step k = 0 (least noise) .. S - 1.

    Attributes:
        timesteps: [S] int64, the time step of the training schedule that the network is told at step k.
        betas: variance of the forward step.
        alpha_bar: squared signal level after step k.
        posterior_variance: of q(x_{k-1} | x_k, x_0), "beta tilde".
        posterior_log_variance: its logarithm, the zero at k = 0 replaced by the value at k = 1.
        posterior_mean_x0: weight of x_0 in the posterior's mean.
        posterior_mean_xt: weight of x_k in it.
    """

    timesteps: Tensor
    betas: Tensor
    alpha_bar: Tensor
    posterior_variance: Tensor
    posterior_log_variance: Tensor
    posterior_mean_x0: Tensor
    posterior_mean_xt: Tensor

    @staticmethod
    def from_betas(betas: Tensor, timesteps: Tensor) -> "DiffusionSchedule":
        """Derive all tables from betas [S] float64."""
        alpha_bar = torch.cumprod(1 - betas, dim=0)
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        variance = betas * (1 - previous) / (1 - alpha_bar)
        return DiffusionSchedule(
            timesteps=timesteps,
            betas=betas,
            alpha_bar=alpha_bar,
            posterior_variance=variance,
            posterior_log_variance=torch.cat([variance[1:2], variance[1:]]).log(),
            posterior_mean_x0=betas * previous.sqrt() / (1 - alpha_bar),
            posterior_mean_xt=(1 - previous) * (1 - betas).sqrt() / (1 - alpha_bar),
        )

    @staticmethod
    def cosine(num_steps: int = 1000) -> "DiffusionSchedule":
        """The cosine schedule with all its `num_steps` training steps."""
        return DiffusionSchedule.from_betas(cosine_betas(num_steps), torch.arange(num_steps))

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.betas)

    def respaced(self, num_steps: int) -> "DiffusionSchedule":
        """Keep `num_steps` evenly spaced steps, the first and the last among them, at their own alpha-bar (MAR's way).

        Raises:
            ValueError: `num_steps` is not in 2 .. S.
        """
        self._check(num_steps)
        stride = (self.num_steps - 1) / (num_steps - 1)
        return self._keep(torch.tensor([round(k * stride) for k in range(num_steps)]))

    def spaced_by_angle(self, num_steps: int) -> "DiffusionSchedule":
        """Keep the steps nearest to evenly spaced angles atan(sqrt((1 - alpha-bar) / alpha-bar) / SPREAD).

        `mntp.heads.solvers.kept_steps` says why. The largest angle is that of the last step with sqrt(alpha-bar) >=
        MIN_SIGNAL; the least is one S-th of it, so that the clean token, at angle 0, comes after a step as long as the
        others. Where the schedule is coarser than that, neighbouring steps are kept, and noisier ones only if these are
        too few.

        Raises:
            ValueError: `num_steps` is not in 2 .. S.
        """
        self._check(num_steps)
        angles = torch.atan(torch.sqrt((1 - self.alpha_bar) / self.alpha_bar) / SPREAD)
        index = torch.arange(num_steps)
        last = max(int((self.alpha_bar.sqrt() >= MIN_SIGNAL).sum()), num_steps) - 1
        wanted = (index + 1) / num_steps * angles[last]
        nearest = (angles - wanted[:, None]).abs().argmin(dim=1)
        # No step twice: those before step k take k places, those after it leave the rest.
        shift = torch.cummax(nearest - index, dim=0).values.clamp(max=last + 1 - num_steps)
        return self._keep(index + shift)

    def _check(self, num_steps: int) -> None:
        if not 2 <= num_steps <= self.num_steps:
            raise ValueError(f"decoding.sampling.num_steps: expected 2 to {self.num_steps}, got {num_steps}")

    def _keep(self, kept: Tensor) -> "DiffusionSchedule":
        """The schedule of the steps `kept`, in rising order."""
        alpha_bar = self.alpha_bar[kept]
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        return DiffusionSchedule.from_betas(1 - alpha_bar / previous, self.timesteps[kept])

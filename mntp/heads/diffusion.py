"""The token-wise diffusion head of MAR and of the paper (section 3.1; arXiv 2406.11838, section 3.2).

Noise prediction on a cosine schedule of 1000 steps with a learned variance range. The loss is
MSE(eps) + the variational bound term with the mean detached: MAR's code trains both, the paper prints the first.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import repeat
from torch import Tensor

from mntp.heads.base import Head
from mntp.heads.denoiser import MLPDenoiser, guided_denoiser
from mntp.heads.likelihood import discretised_log_likelihood, normal_kl
from mntp.heads.schedules import DiffusionSchedule, table_on
from mntp.heads.settings import HeadSampling, SolverSampling
from mntp.heads.solvers import SOLVERS, STOCHASTIC, kept_steps


@dataclass(frozen=True, kw_only=True)
class DiffusionSampling(SolverSampling):
    """Settings of DiffusionHead; the temperature scales the noise that each solver names. See SolverSampling."""

    solvers: ClassVar[tuple[str, ...]] = tuple(SOLVERS)

    solver: str = "ancestral"


class DiffusionHead(Head):
    """p(x | z) by denoising diffusion with a small MLP.

    Args:
        token_dim: D.
        cond_dim: C.
        width: hidden width of the MLP (the paper: 1024).
        depth: residual blocks (the paper: 3 Base, 6 Large).
        num_noise_draws: independent (t, noise) draws for each pair and step (MAR's model default: 4).
    """

    held_out_name = "loss"
    sampling_type = DiffusionSampling
    guidance_spaces = ("output", "context")

    def __init__(
        self, token_dim: int, cond_dim: int, width: int = 1024, depth: int = 3, num_noise_draws: int = 4
    ) -> None:
        super().__init__(token_dim, cond_dim)
        self.num_noise_draws = num_noise_draws
        self.net = MLPDenoiser(token_dim, cond_dim, width, depth, out_dim=2 * token_dim)
        self.schedule = DiffusionSchedule.cosine()
        self._log_betas = self.schedule.betas.log()

    def loss(self, z: Tensor, target: Tensor, generator: torch.Generator, step: int = 0) -> Tensor:
        """MSE + bound term, averaged over D and over `num_noise_draws` draws -> [M]."""
        draws = self.num_noise_draws
        z, x = repeat(z, "m c -> (k m) c", k=draws), repeat(target, "m d -> (k m) d", k=draws)
        t = torch.randint(self.schedule.num_steps, x.shape[:1], generator=generator, device=x.device)
        dtype = torch.promote_types(x.dtype, torch.float32)  # noise and noisy tokens never in half precision
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=dtype)
        mse, bound = self.loss_terms(z, x, t, noise)
        return (mse + bound).view(draws, -1).mean(dim=0)

    def loss_terms(self, z: Tensor, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms at given times and noise: mean squared error [M] and bound term in bits [M]."""
        x = x.to(noise.dtype)
        x_t = self.diffuse(x, t, noise)
        eps, v = self.net(x_t, t, z).to(x.dtype).chunk(2, dim=-1)
        mse = (noise - eps).square().mean(dim=-1)
        return mse, self._bound(x, x_t, t, eps.detach(), v).mean(dim=-1) / math.log(2)

    def held_out_loss(self, z: Tensor, target: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Squared error of the predicted noise at t = floor(1000 level), averaged over D -> [M]."""
        t = (level * self.schedule.num_steps).long()
        eps = self.net(self.diffuse(target, t, noise), t, z).to(noise.dtype)[:, : self.token_dim]
        return (noise - eps).square().mean(dim=-1)

    def diffuse(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Sample q(x_t | x_0 = x) [M, D] with the given noise."""
        alpha_bar = self._at(self.schedule.alpha_bar, t, x)
        return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise

    def check(self, sampling: HeadSampling) -> None:
        """Refuse more or fewer steps than the schedule can keep."""
        assert isinstance(sampling, DiffusionSampling)
        kept_steps(self.schedule, sampling.solver, sampling.num_steps)

    def num_draws(self, sampling: HeadSampling) -> int:
        """One for each step with the stochastic solvers, the starting noise alone with the deterministic ones."""
        assert isinstance(sampling, DiffusionSampling)
        return sampling.num_steps if sampling.solver in STOCHASTIC else 1

    @torch.no_grad()
    def sample(
        self,
        z: Tensor,
        noise: Tensor,
        sampling: HeadSampling,
        *,
        z_uncond: Tensor | None = None,
        guidance_scale: float | Tensor = 1.0,
    ) -> Tensor:
        """Solve from noise to token on the steps that the solver keeps, guided on the predicted noise.

        Under guidance the variance of `ancestral` comes from the conditional branch. The first steps of `ancestral`
        divide the network's error by sqrt(alpha-bar), which is 5e-5 there: a network that is not trained to the end
        needs `x0_limit`, which MAR and the paper do without. The other solvers start later (see `kept_steps`).
        """
        assert isinstance(sampling, DiffusionSampling)
        schedule = kept_steps(self.schedule, sampling.solver, sampling.num_steps)
        last = schedule.num_steps - 1
        denoise = guided_denoiser(
            self.net,
            schedule.timesteps.tolist(),
            z,
            z_uncond,
            guidance_scale,
            is_guided=lambda k: sampling.is_guided(last - k),
        )

        def predict(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
            guided, conditional = denoise(x, k)
            return guided[:, : self.token_dim], conditional[:, self.token_dim :]

        return SOLVERS[sampling.solver](schedule, predict, noise, sampling)

    def _bound(self, x: Tensor, x_t: Tensor, t: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """Bound term in nats [M, D]: KL of the posteriors, at t = 0 the discretised likelihood of x."""
        schedule = self.schedule
        alpha_bar = self._at(schedule.alpha_bar, t, x)
        x_0 = (x_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
        weight_x0 = self._at(schedule.posterior_mean_x0, t, x)
        weight_xt = self._at(schedule.posterior_mean_xt, t, x)
        true_mean, mean = weight_x0 * x + weight_xt * x_t, weight_x0 * x_0 + weight_xt * x_t
        low = self._at(schedule.posterior_log_variance, t, x)
        high = self._at(self._log_betas, t, x)
        fraction = (v + 1) / 2
        log_variance = fraction * high + (1 - fraction) * low
        kl = normal_kl(true_mean, low, mean, log_variance)
        likelihood = discretised_log_likelihood(x, mean, 0.5 * log_variance)
        return torch.where(t[:, None] == 0, -likelihood, kl)

    @staticmethod
    def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """Entries t [M] of a schedule's table, as [M, 1] in the dtype and on the device of `like`."""
        return table_on(table, like.device, like.dtype)[t][:, None]

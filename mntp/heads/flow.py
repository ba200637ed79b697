"""A token-wise flow-matching head (arXiv 2210.02747, linear path) on the network of the diffusion head.

Time runs from noise to token: x_t = (1 - t) noise + t x, so that t = 0 is pure noise and t = 1 the token. The network
predicts the velocity x - noise.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import repeat
from torch import Tensor

from mntp.heads.base import Head
from mntp.heads.denoiser import MLPDenoiser, guided_denoiser
from mntp.heads.settings import HeadSampling, SolverSampling

TIME_SCALE = 1000.0  # the sinusoids of the time are made for 0 .. 1000


@dataclass(frozen=True, kw_only=True)
class FlowSampling(SolverSampling):
    """Settings of FlowMatchingHead; the temperature scales the starting noise. See SolverSampling."""

    solvers: ClassVar[tuple[str, ...]] = ("euler", "heun")

    solver: str = "euler"


class FlowMatchingHead(Head):
    """p(x | z) by a flow from noise with a small MLP.

    The temperature multiplies the starting noise; guidance acts on the velocity.

    Args:
        token_dim: D.
        cond_dim: C.
        width: hidden width of the MLP.
        depth: residual blocks.
        num_noise_draws: independent (t, noise) draws for each pair and step.
    """

    held_out_name = "velocity_loss"
    sampling_type = FlowSampling
    guidance_spaces = ("output", "context")

    def __init__(
        self, token_dim: int, cond_dim: int, width: int = 1024, depth: int = 3, num_noise_draws: int = 4
    ) -> None:
        super().__init__(token_dim, cond_dim)
        self.num_noise_draws = num_noise_draws
        self.net = MLPDenoiser(token_dim, cond_dim, width, depth, out_dim=token_dim)

    def loss(self, z: Tensor, target: Tensor, generator: torch.Generator, step: int = 0) -> Tensor:
        """Squared error of the velocity at uniform times, averaged over D and `num_noise_draws` draws -> [M]."""
        draws = self.num_noise_draws
        z, x = repeat(z, "m c -> (k m) c", k=draws), repeat(target, "m d -> (k m) d", k=draws)
        dtype = torch.promote_types(x.dtype, torch.float32)  # noise and noisy tokens never in half precision
        t = torch.rand(x.shape[:1], generator=generator, device=x.device, dtype=dtype)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=dtype)
        return self._error(z, x, t, noise).view(draws, -1).mean(dim=0)

    def held_out_loss(self, z: Tensor, target: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Squared error of the velocity at t = level, averaged over D -> [M]."""
        return self._error(z, target, level.to(noise.dtype), noise)

    def num_draws(self, sampling: HeadSampling) -> int:
        """The starting noise."""
        return 1

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
        """Solve the flow in equal steps: `euler` (first order), or `heun` (second order, two network calls a step).

        The last step is Euler's with both: it lands on the estimate of the token, and t = 1 is never asked for.
        """
        assert isinstance(sampling, FlowSampling)
        num_steps, second_order, limit = sampling.num_steps, sampling.solver == "heun", sampling.x0_limit
        times = [step / num_steps * TIME_SCALE for step in range(num_steps)]
        denoise = guided_denoiser(self.net, times, z, z_uncond, guidance_scale, sampling.is_guided)

        def velocity(x: Tensor, step: int) -> Tensor:
            v, _ = denoise(x, step)
            if limit is None:
                return v
            left = 1 - step / num_steps
            return ((x + left * v).clamp(-limit, limit) - x) / left

        x = sampling.temperature * noise[:, 0]
        for step in range(num_steps):
            v = velocity(x, step)
            if second_order and step + 1 < num_steps:
                v = (v + velocity(x + v / num_steps, step + 1)) / 2
            x = x + v / num_steps
        return x

    def _error(self, z: Tensor, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x, time = x.to(noise.dtype), t[:, None]
        velocity = self.net((1 - time) * noise + time * x, t * TIME_SCALE, z).to(noise.dtype)
        return (x - noise - velocity).square().mean(dim=-1)

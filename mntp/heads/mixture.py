"""A mixture of Gaussians as head: GIVT (arXiv 2312.02116), the joint mixture with diagonal covariances.

M pairs, K components, D values of a token, C width of a context.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mntp.heads.base import Head
from mntp.heads.denoiser import ResidualBlock
from mntp.heads.settings import HeadSampling, check_x0_limit
from mntp.layers import LayerNorm, xavier_linear, zero_linear

MIN_SCALE = 1e-3  # GIVT: 1e-6, with which a component can collapse on one token; ours
SPREAD = 0.1  # standard deviation of the components' means at initialisation; ours


@dataclass(frozen=True, kw_only=True)
class MixtureSampling(HeadSampling):
    """Settings of MixtureHead.

    Args:
        temperature: scales the components' standard deviations.
        x0_limit: clips the component's mean to +-x0_limit; None clips nothing.

    Raises:
        ValueError: a value out of range.
    """

    x0_limit: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_x0_limit(self.x0_limit)


class Mixture(NamedTuple):
    """K diagonal Gaussians for each pair.

    Attributes:
        log_weights: [M, K].
        means: [M, K, D].
        scales: [M, K, D] standard deviations.
    """

    log_weights: Tensor
    means: Tensor
    scales: Tensor


class MixtureHead(Head):
    """p(x | z) as a mixture of K diagonal Gaussians, K + 2 K D outputs of a small residual MLP of z.

    Sampling is exact and takes one network call. Guidance acts on the context: the sharpened density p_c^w p_u^(1-w)
    of GIVT is no mixture, and drawing from it by rejection would take an unbounded number of draws.

    Args:
        token_dim: D.
        cond_dim: C.
        width: hidden width of the MLP.
        depth: residual blocks.
        num_components: K.
    """

    held_out_name = "nll"
    sampling_type = MixtureSampling

    def __init__(
        self, token_dim: int, cond_dim: int, width: int = 1024, depth: int = 3, num_components: int = 16
    ) -> None:
        super().__init__(token_dim, cond_dim)
        self.num_components = num_components
        self.cond_proj = xavier_linear(cond_dim, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.final_norm = LayerNorm(width)
        self.output_proj = zero_linear(width, num_components * (1 + 2 * token_dim))
        # All-zero outputs make K equal components, whose gradients are equal for ever: the means start apart.
        nn.init.normal_(self.output_proj.bias[num_components : num_components * (1 + token_dim)], std=SPREAD)

    def mixture(self, z: Tensor) -> Mixture:
        """The distribution under contexts z [M, C], in float32 or better."""
        h = self.cond_proj(z)
        y = nn.functional.silu(h)
        for block in self.blocks:
            h = block(h, y)
        out = self.output_proj(self.final_norm(h))
        out = out.to(torch.promote_types(out.dtype, torch.float32))
        count, shape = self.num_components, (-1, self.num_components, self.token_dim)
        logits, means, scales = out.split([count, count * self.token_dim, count * self.token_dim], dim=-1)
        return Mixture(logits.log_softmax(dim=-1), means.view(shape), MIN_SCALE + square_plus(scales).view(shape))

    def loss(self, z: Tensor, target: Tensor, generator: torch.Generator, step: int = 0) -> Tensor:
        """Negative log likelihood in nats, divided by D -> [M]; draws nothing."""
        return self._nll(z, target)

    def held_out_loss(self, z: Tensor, target: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """The training loss: it is exact, and needs neither level nor noise."""
        return self._nll(z, target)

    def num_draws(self, sampling: HeadSampling) -> int:
        """One whose first value chooses the component, one for the Gaussian."""
        return 2

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
        """Choose a component by the normal distribution function of the first draw's first value, then draw from it."""
        assert isinstance(sampling, MixtureSampling) and z_uncond is None
        mixture = self.mixture(z)
        below = mixture.log_weights.exp().cumsum(dim=-1)[:, :-1]  # the last one takes the rest
        component = (torch.special.ndtr(noise[:, 0, :1].to(below.dtype)) > below).sum(dim=-1)
        rows = torch.arange(len(z), device=z.device)
        mean, scale = mixture.means[rows, component], mixture.scales[rows, component]
        if sampling.x0_limit is not None:
            mean = mean.clamp(-sampling.x0_limit, sampling.x0_limit)
        return mean + sampling.temperature * scale * noise[:, 1]

    def _nll(self, z: Tensor, x: Tensor) -> Tensor:
        mixture = self.mixture(z)
        away = (x[:, None] - mixture.means) / mixture.scales
        log_densities = -(0.5 * away.square() + mixture.scales.log() + 0.5 * math.log(2 * math.pi)).sum(dim=-1)
        return -(mixture.log_weights + log_densities).logsumexp(dim=-1) / self.token_dim


def square_plus(x: Tensor) -> Tensor:
    """(x + sqrt(x^2 + 4)) / 2: positive, 1 at 0, nearly linear above (GIVT)."""
    return (x + (x.square() + 4).sqrt()) / 2

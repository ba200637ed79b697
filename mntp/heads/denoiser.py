"""The small network of token-wise heads: MAR's residual MLP with adaptive layer norm (arXiv 2406.11838, app. B).

M scored pairs, D token_dim, C cond_dim (width of the context z), w width, S sampling steps.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mntp.layers import LayerNorm, xavier_linear, zero_linear

TIME_FEATURES = 256
MAX_MODULATIONS = 2**26  # values computed in advance at once: 256 MB in float32

# (noisy tokens x [M, D], step k, rows R) -> outputs [R, out_dim] of the first R contexts; R is M, or a multiple of it
# where contexts of several branches share their noisy tokens.
Denoise = Callable[[Tensor, int, int], Tensor]


def time_features(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Sinusoids of t [M] -> [M, 256] in `dtype`: frequencies 10000^(-k/128), cosines first, then sines."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=dtype, device=t.device))
    angles = t.to(dtype)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@functools.cache
def times_on(times: tuple[float, ...], device: torch.device) -> Tensor:
    """Times as a tensor [S] on a device, copied there once: a captured loop can't copy from the host."""
    return torch.tensor(times, device=device)


class TimeEmbedding(nn.Module):
    """Sinusoids of the time step through Linear-SiLU-Linear, both weights N(0, 0.02)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = xavier_linear(TIME_FEATURES, width)
        self.fc2 = xavier_linear(width, width)
        nn.init.normal_(self.fc1.weight, std=0.02)
        nn.init.normal_(self.fc2.weight, std=0.02)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Time steps t [M] -> [M, w] in `dtype`."""
        return self.fc2(F.silu(self.fc1(time_features(t, dtype))))


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """h (1 + scale) + shift."""
    return h * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """LN, modulate, Linear-SiLU-Linear, gate; (shift, scale, gate) = Linear(SiLU(y))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.fc1 = xavier_linear(width, width)
        self.fc2 = xavier_linear(width, width)
        self.modulation = zero_linear(width, 3 * width)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """h [M, w] under the condition SiLU(y) [M, w]."""
        return self.modulated(h, self.modulation(y))

    def modulated(self, h: Tensor, modulation: Tensor) -> Tensor:
        """h [M, w] under a modulation [M, 3 w] that is known already."""
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return h + gate * self.fc2(F.silu(self.fc1(modulate(self.norm(h), shift, scale))))


class Denoiser(nn.Module, ABC):
    """Network(noisy token, time, context) -> out_dim values a token."""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Noisy tokens x [M, D] at times t [M] (on the training schedule), contexts z [M, C] -> [M, out_dim]."""

    def at_times(self, times: Sequence[float], z: Tensor) -> Denoise:
        """Fix times (S of them, on the training schedule) and contexts z [M, C], so that steps can share work.

        Here they share none: the plain variant, that others are held against.
        """
        return lambda x, k, rows: self(x.repeat(rows // len(x), 1), x.new_full((rows,), times[k]), z[:rows])


class MLPDenoiser(Denoiser):
    """A residual MLP with adaptive layer norm.

    Args:
        token_dim: D.
        cond_dim: C, width of the context z.
        width: w, hidden width.
        depth: number of residual blocks.
        out_dim: values put out for a token (2 D for a head with learned variance).
    """

    def __init__(self, token_dim: int, cond_dim: int, width: int, depth: int, out_dim: int) -> None:
        super().__init__()
        self.input_proj = xavier_linear(token_dim, width)
        self.cond_proj = xavier_linear(cond_dim, width)
        self.time_embed = TimeEmbedding(width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.final_norm = LayerNorm(width, elementwise_affine=False)
        self.final_modulation = zero_linear(width, 2 * width)
        self.output_proj = zero_linear(width, out_dim)

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """As in Denoiser."""
        y = F.silu(self.time_embed(t, x.dtype) + self.cond_proj(z))
        return self._modulated(self.input_proj(x), self._modulations(y))

    def at_times(self, times: Sequence[float], z: Tensor) -> Denoise:
        """As in Denoiser, with all modulations known before the first step.

        They take one product a block instead of one a step and block, and leave two w x w products a block to the
        chain from step to step: the same numbers up to rounding. Where they would take too much memory, they are
        computed for some steps at a time.
        """
        steps_at_once = max(1, MAX_MODULATIONS // (z.shape[0] * self.num_modulations))
        condition = self.cond_proj(z)
        time = self.time_embed(times_on(tuple(times), z.device), torch.promote_types(z.dtype, torch.float32))
        first, known = -1, list[Tensor]()

        def denoise(x: Tensor, k: int, rows: int) -> Tensor:
            nonlocal first, known
            if first != k // steps_at_once * steps_at_once:
                first = k // steps_at_once * steps_at_once
                known = self._modulations(F.silu(time[first : first + steps_at_once, None] + condition))
            h = self.input_proj(x).repeat(rows // len(x), 1)  # before the first modulation all branches are one
            return self._modulated(h, [each[k - first, :rows] for each in known])

        return denoise

    @property
    def num_modulations(self) -> int:
        """Values that modulate one context at one step."""
        return (3 * len(self.blocks) + 2) * self.input_proj.out_features

    def _modulations(self, y: Tensor) -> list[Tensor]:
        """Of each block [..., 3 w], and lastly of the output [..., 2 w], under SiLU(y) [..., w]."""
        return [*(block.modulation(y) for block in self._residual_blocks()), self.final_modulation(y)]

    def _residual_blocks(self) -> Iterator[ResidualBlock]:
        return (cast(ResidualBlock, block) for block in self.blocks)

    def _modulated(self, h: Tensor, modulations: Sequence[Tensor]) -> Tensor:
        for block, modulation in zip(self._residual_blocks(), modulations[:-1], strict=True):
            h = block.modulated(h, modulation)
        shift, scale = modulations[-1].chunk(2, dim=-1)
        return self.output_proj(modulate(self.final_norm(h), shift, scale))


def guided_denoiser(
    net: Denoiser,
    times: Sequence[float],
    z: Tensor,
    z_uncond: Tensor | None,
    guidance_scale: float | Tensor,
    is_guided: Callable[[int], bool] = lambda _: True,
) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """Outputs of a denoiser with classifier-free guidance on them, both branches in one call.

    Args:
        net: the network.
        times: S times, on the training schedule.
        z: contexts [M, C].
        z_uncond: contexts [M, C] of the fake prompt, or None.
        guidance_scale: w of out_u + w (out_c - out_u); 1 is exactly the conditional branch.
        is_guided: whether step k is guided; else it is the conditional branch alone.

    Returns:
        (noisy tokens x [M, D], step k) -> guided and conditional outputs [M, out_dim], in the dtype of x.
    """
    guided = z_uncond is not None and (isinstance(guidance_scale, Tensor) or guidance_scale != 1.0)
    denoise = net.at_times(times, torch.cat([z, z_uncond]) if z_uncond is not None and guided else z)

    def run(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if not guided or not is_guided(k):
            out = denoise(x, k, len(x)).to(x.dtype)
            return out, out
        conditional, unconditional = denoise(x, k, 2 * len(x)).to(x.dtype).chunk(2)
        return conditional + (guidance_scale - 1) * (conditional - unconditional), conditional

    return run

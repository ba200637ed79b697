"""The small network of token-wise heads: MAR's residual MLP with adaptive layer norm (arXiv 2406.11838, app. B).

M scored pairs, D token_dim, C cond_dim (width of the context z), w width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mntp.layers import LayerNorm, xavier_linear, zero_linear

TIME_FEATURES = 256


def time_features(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Sinusoids of t [M] -> [M, 256] in `dtype`: frequencies 10000^(-k/128), cosines first, then sines."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=dtype, device=t.device))
    angles = t.to(dtype)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


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
        shift, scale, gate = self.modulation(y).chunk(3, dim=-1)
        return h + gate * self.fc2(F.silu(self.fc1(modulate(self.norm(h), shift, scale))))


class MLPDenoiser(nn.Module):
    """Network(noisy token, time, context) -> out_dim values a token.

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
        """Noisy tokens x [M, D] at times t [M] (on the training schedule), contexts z [M, C] -> [M, out_dim]."""
        y = F.silu(self.time_embed(t, x.dtype) + self.cond_proj(z))
        h = self.input_proj(x)
        for block in self.blocks:
            h = block(h, y)
        shift, scale = self.final_modulation(y).chunk(2, dim=-1)
        return self.output_proj(modulate(self.final_norm(h), shift, scale))


def run_guided(
    net: nn.Module, x: Tensor, t: float, z: Tensor, z_uncond: Tensor | None, guidance_scale: float
) -> tuple[Tensor, Tensor]:
    """Outputs of a denoiser at one time for all tokens, with classifier-free guidance on them.

    Args:
        net: (x [M, D], t [M], z [M, C]) -> [M, out_dim]; called once, guided on both branches together.
        x: noisy tokens [M, D].
        t: time, on the training schedule.
        z: contexts [M, C].
        z_uncond: contexts [M, C] of the fake prompt, or None.
        guidance_scale: w of out_u + w (out_c - out_u); 1 is exactly the conditional branch.

    Returns:
        Guided and conditional outputs [M, out_dim], in the dtype of x.
    """
    if z_uncond is None or guidance_scale == 1.0:
        out = net(x, x.new_full(x.shape[:1], t), z).to(x.dtype)
        return out, out
    both = torch.cat([x, x])
    out = net(both, x.new_full(both.shape[:1], t), torch.cat([z, z_uncond])).to(x.dtype)
    conditional, unconditional = out.chunk(2)
    return conditional + (guidance_scale - 1) * (conditional - unconditional), conditional

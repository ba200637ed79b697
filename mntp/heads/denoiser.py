"""The small network of token-wise heads: MAR's residual MLP with adaptive layer norm (arXiv 2406.11838, app. B).

M scored pairs, D token_dim, C cond_dim (width of the context z), w width.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from mntp.backbones.blocks import NORM_EPS

TIME_FEATURES = 256


def time_features(t: Tensor) -> Tensor:
    """Sinusoids of t [M] -> [M, 256]: frequencies 10000^(-k/128), cosines first, then sines."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(
        -math.log(10_000) / half * torch.arange(half, dtype=torch.float32, device=t.device)
    )
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """h (1 + scale) + shift."""
    return h * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """LN, modulate, Linear-SiLU-Linear, gate; (shift, scale, gate) = Linear(SiLU(y))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 3 * width)

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
        self.input_proj = nn.Linear(token_dim, width)
        self.cond_proj = nn.Linear(cond_dim, width)
        self.time_embed = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.final_norm = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.final_modulation = nn.Linear(width, 2 * width)
        self.output_proj = nn.Linear(width, out_dim)
        self._init_weights()

    def _init_weights(self) -> None:
        """Xavier; time MLP N(0, 0.02); modulations and output at zero, so that the untrained output is 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.time_embed[0], self.time_embed[2]):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in (*(block.modulation for block in self.blocks), self.final_modulation, self.output_proj):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Noisy tokens x [M, D] at times t [M] (on the training schedule), contexts z [M, C] -> [M, out_dim]."""
        y = F.silu(self.time_embed(time_features(t).to(x.dtype)) + self.cond_proj(z))
        h = self.input_proj(x)
        for block in self.blocks:
            h = block(h, y)
        shift, scale = self.final_modulation(y).chunk(2, dim=-1)
        return self.output_proj(modulate(self.final_norm(h), shift, scale))

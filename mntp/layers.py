"""Layers that backbones, heads and conditioning share."""

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """The layer norm of MAR: eps 1e-6, over the last axis, never in half precision.

    Half-precision input, as autocast's matrix products leave it, is normalised and returned in float32; float32 and
    float64 stay what they are.
    """

    def __init__(self, dim: int, elementwise_affine: bool = True) -> None:
        super().__init__(dim, eps=1e-6, elementwise_affine=elementwise_affine)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return super().forward(x.to(torch.promote_types(x.dtype, torch.float32)))


def xavier_linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer with Xavier-uniform weight and zero bias, MAR's initialisation."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zero_linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer that starts as zero, for modulations and outputs (adaLN-zero)."""
    layer = nn.Linear(in_features, out_features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def free_embedding(*shape: int) -> nn.Parameter:
    """A learned vector or table that is added or put in as it is, starting at N(0, 0.02)."""
    return nn.Parameter(torch.randn(shape) * 0.02)


def matrices_to_bfloat16(module: nn.Module) -> None:
    """Keep the weights of linear layers in bfloat16, for inference under autocast; norms and tables stay as they are.

    Autocast alone would read each weight in float32 and round it anew at every step, which is what decoding a clip at
    a time takes longest for.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.to(torch.bfloat16)

"""Layers that backbones, heads and conditioning share."""

import torch
from torch import nn

NORM_EPS = 1e-6  # of every LayerNorm in MAR


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

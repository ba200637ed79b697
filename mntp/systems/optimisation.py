"""Optimiser settings and parameter groups as in MAR's code and the paper (section 4.1)."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Optimisation:
    """AdamW at a constant rate after a linear warm-up.

    Args:
        learning_rate: the constant rate.
        betas: AdamW's.
        weight_decay: of the matrices of backbone and prompt; see `parameter_groups`.
        num_warmup_steps: optimiser steps from 0 to the full rate.
        fused: one kernel for the whole update, the same but for rounding; None: where the weights are on CUDA.
    """

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.02
    num_warmup_steps: int = 0
    fused: bool | None = None

    def rate(self, step: int) -> float:
        """Factor of the learning rate at optimiser step `step` (from 0)."""
        return min(1.0, (step + 1) / (self.num_warmup_steps + 1))


def build_adamw(system: nn.Module, settings: Optimisation) -> torch.optim.AdamW:
    """AdamW over a system's parameter groups."""
    groups = parameter_groups(system, settings.weight_decay)
    fused = settings.fused
    if fused is None:
        fused = all(p.is_cuda for p in system.parameters())
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=fused)
    # A fused optimiser offers to undo the loss's scale within its update. The gradient has to be in its own scale
    # before that, to be looked at and clipped, and Lightning refuses to clip under such an offer.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def parameter_groups(system: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the trainable parameters into a decayed and an undecayed group, each parameter in exactly one.

    As in MAR: no decay for biases, the weights of norms, and the whole head. Free embeddings (positions, mask token,
    BOS, fake prompt) are decayed; in MAR these carry leading axes of size one and so count as matrices.
    """
    norms = {id(p) for module in system.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in system.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = name.endswith(".bias") or name.startswith("head.") or id(parameter) in norms
        (undecayed if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]

"""How masked tokens are corrupted where they are not dropped."""

from typing import Literal

import torch
from torch import Tensor

MaskingMode = Literal["none", "zero", "gaussian", "drop"]


def corrupt(tokens: Tensor, mask: Tensor, hiding: MaskingMode, generator: torch.Generator) -> Tensor:
    """Put zeros or N(0, I) in the place of hidden tokens [B, N, D]; `none` changes nothing."""
    match hiding:
        case "none":
            return tokens
        case "zero":
            return tokens.masked_fill(mask[..., None], 0.0)
        case "gaussian":
            noise = torch.randn(tokens.shape, generator=generator, device=tokens.device, dtype=tokens.dtype)
            return torch.where(mask[..., None], noise, tokens)
        case "drop":
            raise AssertionError("dropping shortens the sequence: see kept_positions")

"""Orders in which positions are decoded."""

import torch
from torch import Tensor


def behind_known(orders: Tensor, num_known: int) -> Tensor:
    """Orders [B, N] with the first `num_known` positions put in front, the others behind them as they were."""
    return orders.gather(1, torch.where(orders < num_known, orders, num_known).argsort(dim=1, stable=True))


def leading(known: Tensor) -> int:
    """How many positions from the first on are known [B, N] in every clip."""
    return int(known.all(dim=0).long().cumprod(dim=0).sum())

"""Orders in which positions are decoded."""

import torch
from torch import Tensor


def put_known_first(orders: Tensor, num_known: int) -> Tensor:
    """Move the positions below `num_known` to the front of orders [B, N]; the others keep their order."""
    return orders.gather(1, torch.where(orders < num_known, orders, num_known).argsort(dim=1, stable=True))


def count_leading(known: Tensor) -> int:
    """Count the positions from the first on that are known in every clip; `known` is [B, N] bool."""
    return int(known.all(dim=0).long().cumprod(dim=0).sum())

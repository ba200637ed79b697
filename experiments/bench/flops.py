"""Floating-point operations and bytes of matrix products, counted as they are done."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_PRODUCTS = {getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm")}


def count_flops(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products of some work, forwards and backwards; two for each multiplication with addition.

    Attention is done, for the count, as the two products that it is: torch counts its fused kernels on GPUs only, and
    there their recomputation too. Causal attention counts as the whole square. Works on the meta device; sees nothing
    of what is compiled.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def count_bytes(work: Callable[[], object]) -> int:
    """Bytes of the operands and results of the matrix products of some work, as if no cache held any of them."""
    counter = _ByteCounter()
    with sdpa_kernel(SDPBackend.MATH), counter:
        work()
    return counter.total


class _ByteCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result

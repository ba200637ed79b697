"""Floating-point operations of matrix products, counted as they are done."""

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products of some work, forwards and backwards; two for each multiplication with addition.

    Attention is done, for the count, as the two products that it is: torch counts its fused kernels on GPUs only, and
    there their recomputation too. Causal attention counts as the whole square. Works on the meta device; sees nothing
    of what is compiled.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())

"""Precision and device of pretrained networks."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


def default_device() -> torch.device:
    """The first GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def float32() -> Iterator[None]:
    """Compute without gradients in float32 proper, and alike each time, whatever the training around has set.

    That is: no autocast, no TensorFloat-32, no choice of algorithms by their speed.
    """
    cudnn: Any = torch.backends.cudnn
    wanted = (
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        (cudnn.conv, "fp32_precision", "ieee"),
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
    )
    before = [(flags, name, getattr(flags, name)) for flags, name, _ in wanted]
    try:
        for flags, name, value in wanted:
            setattr(flags, name, value)
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False), torch.no_grad():
            yield
    finally:
        for flags, name, value in before:
            setattr(flags, name, value)

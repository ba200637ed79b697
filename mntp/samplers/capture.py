"""CUDA graphs: one launch for a loop of small kernels, which else take longer to start than to run.

On other devices everything is called as it is.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mntp.heads import Head, HeadSampling

NUM_WARM_UPS = 3  # libraries choose their kernels and buffers outside of a capture
_SAMPLES: weakref.WeakKeyDictionary[Head, tuple[tuple[int, ...], "Captured"]] = weakref.WeakKeyDictionary()


class Captured:
    """A function of tensors and plain values, captured for each of their shapes and values and then replayed.

    The function must do the same work on the same memory each time, but for its tensor arguments, which are copied in.
    Its result is copied out.

    Args:
        function: takes tensors, and hashable values or None, by position or by name; returns one tensor.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, *arguments: Any, **named: Any) -> Tensor:
        """Call, capture or replay the function."""
        names = (*range(len(arguments)), *named)
        values = dict(zip(names, (*arguments, *named.values()), strict=True))
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        if not any(tensor.is_cuda for tensor in tensors.values()):
            return self.function(*arguments, **named)
        others = tuple((name, value) for name, value in values.items() if name not in tensors)
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())
        key = (others, shapes, torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"))
        if key not in self._graphs:
            self._graphs[key] = self._capture(values, len(arguments))
        graph, inputs, output = self._graphs[key]
        for mine, given in zip(inputs, tensors.values(), strict=True):
            mine.copy_(given)
        graph.replay()
        return output.clone()

    def _capture(self, values: dict[Any, Any], num: int) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        # Under autocast, weights that were cast and kept would be gone when the graph is replayed: cast inside of it.
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        with torch.autocast("cuda", dtype, enabled, cache_enabled=False):
            return self._captured(values, num)

    def _captured(self, values: dict[Any, Any], num: int) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        held = {name: value.clone() if isinstance(value, Tensor) else value for name, value in values.items()}
        arguments, named = list(held.values())[:num], dict(list(held.items())[num:])
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(NUM_WARM_UPS):
                self.function(*arguments, **named)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.function(*arguments, **named)
        return graph, [value for value in held.values() if isinstance(value, Tensor)], output


def captured_sample(head: Head, device: torch.device) -> Callable[..., Tensor]:
    """`head.sample`; on CUDA captured, and kept for the next clips as long as the head's weights lie where they lay."""
    if device.type != "cuda":
        return head.sample
    places = tuple(parameter.data_ptr() for parameter in head.parameters())
    if head not in _SAMPLES or _SAMPLES[head][0] != places:
        sample = weakref.WeakMethod(head.sample)
        _SAMPLES[head] = (places, Captured(lambda *arguments, **named: _alive(sample)(*arguments, **named)))
    captured = _SAMPLES[head][1]

    def call(
        z: Tensor, noise: Tensor, sampling: HeadSampling, z_uncond: Tensor | None, guidance_scale: float
    ) -> Tensor:
        # As a number, each scale would be a graph of its own.
        scale = guidance_scale if z_uncond is None else torch.tensor(guidance_scale, device=device)
        return captured(z, noise, sampling, z_uncond=z_uncond, guidance_scale=scale)

    return call


def _alive(method: weakref.WeakMethod[Callable[..., Tensor]]) -> Callable[..., Tensor]:
    found = method()
    assert found is not None, "the head is gone, and with it its entry"
    return found

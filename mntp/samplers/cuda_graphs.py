"""Replay a sequence of small kernels as one CUDA graph, because launching them takes longer than running them.

Used where `decoding.cuda_graphs` is true. So far tested by playing a GPU on the CPU only. On other devices functions
are called eagerly.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from mntp.heads import Head, HeadSampling

NUM_WARM_UPS = 3  # libraries choose their kernels and buffers outside of a capture
_SAMPLES: weakref.WeakKeyDictionary[Head, tuple[tuple[int, ...], "Captured"]] = weakref.WeakKeyDictionary()


class Captured:
    """A function of tensors and plain values, captured once for each combination of shapes and values, then replayed.

    The function must do the same work on the same memory each time. Tensor arguments are copied in, the result is
    copied out. Under a dispatch mode (e.g. a FLOP counter) the function is called eagerly, since a replay is invisible
    to it.

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
        device = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
        if device is None or is_in_torch_dispatch_mode():
            return self.function(*arguments, **named)
        others = tuple((name, value) for name, value in values.items() if name not in tensors)
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())
        # Tensors that were made in inference mode can't be written to outside of it.
        modes = (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"), torch.is_inference_mode_enabled())
        key = (others, shapes, modes)
        with torch.cuda.device(device):  # streams and graphs are the current device's
            if key not in self._graphs:
                self._graphs[key] = self._capture(values, len(arguments))
            graph, inputs, output = self._graphs[key]
            for own, given in zip(inputs, tensors.values(), strict=True):
                own.copy_(given)
            graph.replay()
            return output.clone()

    def _capture(self, values: dict[Any, Any], num: int) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        # Autocast's cache of cast weights would be freed before the replay, so weights are cast within the graph.
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        with torch.autocast("cuda", dtype, enabled, cache_enabled=False):
            return self._captured(values, num)

    def _captured(self, values: dict[Any, Any], num: int) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        held = {name: value.clone() if isinstance(value, Tensor) else value for name, value in values.items()}
        arguments, named = list(held.values())[:num], dict(list(held.items())[num:])
        stream = _stream(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(NUM_WARM_UPS):
                self.function(*arguments, **named)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Graphs run one after the other and their results are copied out, so they can share a memory pool.
        pool = next((graph.pool() for graph, *_ in self._graphs.values()), None)
        # Other threads, such as one that pins batches, may call CUDA functions that a capture must not.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            output = self.function(*arguments, **named)
        return graph, [value for value in held.values() if isinstance(value, Tensor)], output


@functools.cache
def _stream(device: int) -> torch.cuda.Stream:
    """The stream of all captures on a device: each stream keeps a workspace for matrix products."""
    return torch.cuda.Stream(device)


def captured_sample(head: Head, like: Tensor) -> Callable[..., Tensor]:
    """`head.sample`, on CUDA captured. Graphs are cached until a parameter of the head moves in memory.

    Args:
        head: the head.
        like: a tensor on its device.
    """
    if not like.is_cuda:
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
        scale = guidance_scale if z_uncond is None else z.new_full((), guidance_scale)
        return captured(z, noise, sampling, z_uncond=z_uncond, guidance_scale=scale)

    return call


def _alive(method: weakref.WeakMethod[Callable[..., Tensor]]) -> Callable[..., Tensor]:
    found = method()
    assert found is not None, "the cache's entry goes with its head"
    return found

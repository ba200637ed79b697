"""Cached keys and values of a causal backbone."""

from typing import Protocol

import torch
from torch import Tensor


class Cache(Protocol):
    """What a causal backbone remembers of the inputs so far."""

    def advance(self, num_positions: int) -> None:
        """Keep `num_positions` more of the inputs that were fed last."""
        ...


class KVCache:
    """Keys and values of the positions seen so far, preallocated for every layer.

    Args:
        num_layers, batch_size, num_heads, max_length, head_dim: sizes; max_length in positions.
        device, dtype: of the cached tensors.
        fixed: attend to all of `max_length`, with what is not filled masked out. Every call of T positions then has
            the same shapes and runs the same kernels on the same memory, so that it can be captured as a CUDA graph.
    """

    def __init__(
        self,
        num_layers: int,
        batch_size: int,
        num_heads: int,
        max_length: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype,
        fixed: bool = False,
    ) -> None:
        shape = (num_layers, 2, batch_size, num_heads, max_length, head_dim)
        self._store = torch.zeros(shape, device=device, dtype=dtype)
        self._places = torch.arange(max_length, device=device)
        self._start = torch.zeros((), dtype=torch.long, device=device)  # `length`, for captured kernels
        self._fixed = fixed
        self.length = 0
        self.mask: Tensor | None = None

    @property
    def max_length(self) -> int:
        """How many positions fit."""
        return self._store.shape[-2]

    @property
    def num_bytes(self) -> int:
        """Memory of keys and values."""
        return self._store.numel() * self._store.element_size()

    def open(self, num_new: int, num_parallel: int = 1) -> None:
        """Reserve places for `num_new` positions and build their attention mask: each sees all before it and itself.

        The last `num_parallel` are alternatives to each other: they see what is before the first of them.
        """
        end = self.length + num_new
        assert end <= self.max_length, f"cache holds {self.max_length} positions, got {end}"
        self._new = self._start + self._places[:num_new]
        places = self._places if self._fixed else self._places[:end]
        before = places < torch.minimum(self._new, self._new[-num_parallel])[:, None]
        mask = before | (places == self._new[:, None])
        self.mask = mask if self._fixed or num_new > 1 else None
        self._seen = len(places)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, heads, T, head_dim] to their places; return both for all visible positions."""
        self._store[layer, 0].index_copy_(2, self._new, keys.to(self._store.dtype))
        self._store[layer, 1].index_copy_(2, self._new, values.to(self._store.dtype))
        return self._store[layer, 0, :, :, : self._seen], self._store[layer, 1, :, :, : self._seen]

    def advance(self, num_positions: int) -> None:
        """Count `num_positions` as filled; what was written after them will be overwritten."""
        self.length += num_positions
        self._start.fill_(self.length)

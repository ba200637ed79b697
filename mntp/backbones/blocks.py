"""Transformer blocks as in MAR (timm's ViT block), with an explicit key/value cache.

Pre-norm LayerNorm, qkv with bias, exact GELU, attention dropout, and projection dropout that also
acts twice inside the MLP (after the activation and after the second layer). B batch, T new positions, S all
positions so far, C model width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mntp.layers import LayerNorm, xavier_linear


class KVCache:
    """Keys and values of the positions seen so far, preallocated for every layer.

    Args:
        num_layers, batch_size, num_heads, max_length, head_dim: sizes; max_length in positions.
        device, dtype: of the cached tensors.
        fixed: attend to all of `max_length`, what isn't filled masked out: every call of T positions then has the same
            shapes and runs the same kernels on the same memory, and can be captured as a CUDA graph.
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
        """Choose places for `num_new` positions, and whom each of them sees: all before it, and itself.

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
        """Write keys and values [B, heads, T, head_dim] to their places; return both with all that may be seen."""
        self._store[layer, 0].index_copy_(2, self._new, keys.to(self._store.dtype))
        self._store[layer, 1].index_copy_(2, self._new, values.to(self._store.dtype))
        return self._store[layer, 0, :, :, : self._seen], self._store[layer, 1, :, :, : self._seen]

    def advance(self, num_positions: int) -> None:
        """Count `num_positions` as filled; what was written behind them will be overwritten."""
        self.length += num_positions
        self._start.fill_(self.length)


class Attention(nn.Module):
    """Multi-head self-attention over [B, T, C]; causal or full, with or without a cache."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = xavier_linear(dim, 3 * dim)
        self.proj = xavier_linear(dim, dim)
        self.proj_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, causal: bool, cache: KVCache | None, layer: int) -> Tensor:
        """Attend from x [B, T, C] to itself; with an open cache, to what that shows."""
        q, k, v = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.num_heads)
        mask = None
        if cache is not None:
            k, v = cache.append(layer, k, v)
            mask = cache.mask
        x = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal and cache is None,
        )
        return self.proj_dropout(self.proj(rearrange(x, "b h t d -> b t (h d)")))


class MLP(nn.Module):
    """Linear, GELU, Linear over the last axis."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = xavier_linear(dim, hidden_dim)
        self.fc2 = xavier_linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to its input."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = Attention(dim, num_heads, dropout)
        self.norm2 = LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio), dropout)

    def forward(self, x: Tensor, causal: bool, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        """[B, T, C] -> [B, T, C]; `layer` is this block's place in the cache."""
        x = x + self.attn(self.norm1(x), causal, cache, layer)
        return x + self.mlp(self.norm2(x))

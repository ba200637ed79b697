"""Transformer blocks as in MAR (timm's ViT block), with an explicit key/value cache.

Pre-norm LayerNorm, qkv with bias, exact GELU, attention dropout, and projection dropout that also
acts twice inside the MLP (after the activation and after the second layer). B batch, T new positions, S all
positions so far, C model width.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mntp.backbones.kv_cache import KVCache
from mntp.layers import LayerNorm, xavier_linear


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
    """Attention and MLP, each after a LayerNorm and added to its input."""

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

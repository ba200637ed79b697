"""What backbones share: token embedding, positions, two halves of blocks and the bridge between them.

The causal decoder and MAR's encoder-decoder use the same names for the same parts, so that weights carry over by name
(Table 3, row B; and the public image MAR checkpoints).
"""

from abc import ABC
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mntp.backbones.blocks import Block
from mntp.backbones.kv_cache import KVCache
from mntp.layers import LayerNorm, free_embedding, xavier_linear


class Backbone(nn.Module, ABC):
    """What every system needs of a backbone.

    Attributes:
        dim: C, width of prompts and contexts.
        num_tokens: N, tokens of a clip.
        prompt_length: P, prompt positions in front.
    """

    dim: int
    num_tokens: int
    prompt_length: int


class TransformerBackbone(Backbone):
    """Embeddings and blocks of MAR's shape (paper section 4.1; MAR's `mar.py`).

    Args:
        token_dim: D, values of a token.
        num_tokens: N, tokens of a clip.
        prompt_length: P, prompt positions in front.
        dim: C, model width.
        depth: number of blocks; the first half is MAR's encoder, the second its decoder.
        num_heads: attention heads; must divide dim.
        mlp_ratio: hidden width of a block's MLP over dim.
        dropout: of attention and of projections.
        checkpoint_activations: in training, keep only each block's input and run the block again for its gradient:
            the same numbers, a third more work, and memory for one block instead of all.

    Raises:
        ValueError: dim is not a multiple of num_heads, or depth is not even.
    """

    encoder_norm: nn.Module
    decoder_embed: nn.Module

    def __init__(
        self,
        token_dim: int,
        num_tokens: int,
        prompt_length: int,
        dim: int = 768,
        depth: int = 24,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"backbone: dim {dim} is not a multiple of num_heads {num_heads}")
        if depth % 2 or depth < 2:
            raise ValueError(f"backbone: depth {depth} can't be halved into encoder and decoder; give an even one")
        self.num_tokens = num_tokens
        self.prompt_length = prompt_length
        self.dim = dim
        self.num_heads = num_heads
        self.checkpoint_activations = checkpoint_activations
        self.token_proj = xavier_linear(token_dim, dim)
        self.position_embed = free_embedding(prompt_length + num_tokens, dim)
        self.input_norm = LayerNorm(dim)
        self.encoder_blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, dropout) for _ in range(depth // 2))
        self.encoder_norm = LayerNorm(dim)
        self.decoder_embed = xavier_linear(dim, dim)
        self.decoder_blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, dropout) for _ in range(depth // 2))
        self.decoder_norm = LayerNorm(dim)

    def _run_blocks(
        self, blocks: Iterable[nn.Module], x: Tensor, causal: bool, cache: KVCache | None = None, first_layer: int = 0
    ) -> Tensor:
        """Run x [B, T, C] through blocks, whose places in the cache start at `first_layer`."""
        again = self.checkpoint_activations and self.training and torch.is_grad_enabled()
        for layer, block in enumerate(blocks, start=first_layer):
            x = checkpoint(block, x, causal, use_reentrant=False) if again else block(x, causal, cache, layer)
        return x

    def _embed_prompt(self, prompt: Tensor) -> Tensor:
        """Prompt [B, P, C] with its position embeddings."""
        if prompt.shape[1] != self.prompt_length:
            raise ValueError(f"backbone: expected {self.prompt_length} prompt positions, got {prompt.shape[1]}")
        return prompt + self.position_embed[: self.prompt_length]

    def _embed_tokens(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens [B, T, D] at content positions [B, T] -> [B, T, C]."""
        return self.token_proj(tokens) + look_up_rows(self.position_embed, self.prompt_length + positions)


def look_up_rows(table: Tensor, indices: Tensor) -> Tensor:
    """Take rows `indices` [B, T] of a learned table [N, C] -> [B, T, C].

    The same as `table[indices]`, whose gradient is summed in varying order by several threads on a CPU, so that two
    runs would differ in their last bits.
    """
    return F.embedding(indices, table)


def gather_rows(x: Tensor, positions: Tensor) -> Tensor:
    """Take rows `positions` [B, T] of x [B, N, C] -> [B, T, C]."""
    return x.gather(1, rearrange(positions, "b t -> b t 1").expand(-1, -1, x.shape[-1]))


@runtime_checkable
class BackboneFactory(Protocol):
    """Builds a backbone when the system knows tokens and prompt; YAML gives only the backbone's own sizes."""

    def __call__(self, *, token_dim: int, num_tokens: int, prompt_length: int) -> Backbone:
        """Build it."""
        ...

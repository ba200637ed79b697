"""A short context beside the backbone: a small network of the last clean tokens, summed into z.

CALM (arXiv 2509.06926) gives its backbone noisy tokens and a small transformer the last ten clean ones.
B batch, T inputs (BOS and T - 1 tokens), D token_dim, C model width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mntp.backbones.causal import CausalBackbone
from mntp.backbones.kv_cache import Cache


class ShortContext(nn.Module, ABC):
    """Contexts from the tokens alone, output t from the first t of them; added to those of the backbone."""

    @abstractmethod
    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Contexts of a whole sequence.

        Args:
            tokens: [B, T - 1, D] clean tokens after BOS.
            positions: [B, T - 1] int64, their places in the clip.

        Returns:
            [B, T, C].
        """

    @abstractmethod
    def new_cache(self, batch: int, fixed: bool = False) -> Cache:
        """A cache for a clip; arguments as in `CausalBackbone.new_cache`."""

    @abstractmethod
    def prefill(self, cache: Any, tokens: Tensor, positions: Tensor) -> Tensor:
        """As `forward`, filling an empty cache and advancing it."""

    @abstractmethod
    def feed(self, tokens: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Append T tokens [B, T, D] at positions [B, T] -> [B, T, C]; the caller advances the cache by T."""


@dataclass(eq=False)
class TwoCaches:
    """The caches of backbone and short context."""

    long: Cache
    short: Cache

    def advance(self, num_positions: int) -> None:
        """Advance both."""
        self.long.advance(num_positions)
        self.short.advance(num_positions)


class SummedContext(CausalBackbone):
    """Backbone and short context as one causal backbone, for decoding.

    Args:
        backbone: gives the long context.
        short: is added to it.
    """

    def __init__(self, backbone: CausalBackbone, short: ShortContext) -> None:
        super().__init__()
        self.backbone = backbone
        self.short = short
        self.dim, self.num_tokens, self.prompt_length = backbone.dim, backbone.num_tokens, backbone.prompt_length

    def forward(
        self, prompt: Tensor, tokens: Tensor, positions: Tensor, target_embedding: Tensor | None = None
    ) -> Tensor:
        """The sum of both contexts [B, T, C]."""
        z: Tensor = self.backbone(prompt, tokens, positions, target_embedding)
        return z + self.short(tokens, positions)

    def new_cache(self, batch: int, num_parallel: int = 1, fixed: bool = False) -> TwoCaches:
        """One cache of each."""
        return TwoCaches(self.backbone.new_cache(batch, num_parallel, fixed), self.short.new_cache(batch, fixed))

    def prefill(
        self,
        prompt: Tensor,
        cache: TwoCaches,
        tokens: Tensor,
        positions: Tensor,
        target_embedding: Tensor | None = None,
        num_parallel: int = 1,
    ) -> Tensor:
        """Fill both caches; see CausalBackbone."""
        z = self.backbone.prefill(prompt, cache.long, tokens, positions, target_embedding, num_parallel)
        return z + _repeat_last(self.short.prefill(cache.short, tokens, positions), num_parallel)

    def feed(
        self,
        tokens: Tensor,
        positions: Tensor,
        cache: TwoCaches,
        target_embedding: Tensor | None = None,
        num_parallel: int = 1,
    ) -> Tensor:
        """Append tokens to both caches; see CausalBackbone."""
        z = self.backbone.feed(tokens, positions, cache.long, target_embedding, num_parallel)
        return z + _repeat_last(self.short.feed(tokens, positions, cache.short), num_parallel)


def _repeat_last(z: Tensor, num_parallel: int) -> Tensor:
    """Contexts [B, T, C] with the last one repeated for each target position -> [B, T - 1 + num_parallel, C]."""
    return torch.cat([z[:, :-1], z[:, -1:].expand(-1, num_parallel, -1)], dim=1)


@runtime_checkable
class ShortContextFactory(Protocol):
    """Builds a short context when the system knows token_dim and width; YAML gives only its own arguments."""

    def __call__(self, *, token_dim: int, dim: int) -> ShortContext:
        """Build it."""
        ...

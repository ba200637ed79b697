"""The causal decoder of AudioNTP and AudioMNTP (paper section 3.1)."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mntp.backbones.base import Backbone, BackboneFactory
from mntp.backbones.blocks import KVCache
from mntp.layers import free_embedding


class CausalTransformer(Backbone):
    """A causal transformer over [prompt P | BOS | tokens].

    Output t of T is the context from which the token asked of input t is predicted: input 0 is BOS, input t > 0
    the t-th token fed. Positions are *content* positions: a token of place i in the clip always gets row i, whatever
    was dropped before it; BOS has a vector of its own.

    Args:
        bridge: keep MAR's norm and linear layer between its halves, which the image weights of the second half expect
            (ours: the paper doesn't say); False leaves them out.
        args: those of Backbone.
        sizes: those of Backbone.
    """

    def __init__(self, *args: Any, bridge: bool = True, **sizes: Any) -> None:
        super().__init__(*args, **sizes)
        self.bos = free_embedding(self.dim)
        if not bridge:
            self.encoder_norm = self.decoder_embed = nn.Identity()

    def forward(
        self, prompt: Tensor, tokens: Tensor, positions: Tensor, target_embedding: Tensor | None = None
    ) -> Tensor:
        """Contexts of a whole sequence.

        Args:
            prompt: [B, P, C].
            tokens: [B, T - 1, D], the tokens behind BOS.
            positions: [B, T - 1] int64, their places in the clip, increasing.
            target_embedding: [B, T, C] added to the T inputs (the position each is to predict), or None.

        Returns:
            [B, T, C].
        """
        x = torch.cat([self._embed_bos(prompt), self._embed_tokens(tokens, positions)], dim=1)
        if target_embedding is not None:
            x[:, self.prompt_length :] += target_embedding
        return self._run(x, cache=None)[:, self.prompt_length :]

    def prefill(self, prompt: Tensor, target_embedding: Tensor | None = None) -> tuple[Tensor, KVCache]:
        """Run prompt and BOS; returns the context [B, 1, C] of the first token, and the cache to `step` with."""
        batch, head_dim = prompt.shape[0], self.dim // self.num_heads
        cache = KVCache(
            num_layers=len(self.encoder_blocks) + len(self.decoder_blocks),
            batch_size=batch,
            num_heads=self.num_heads,
            max_length=self.prompt_length + self.num_tokens,  # BOS takes the place that x^n never needs
            head_dim=head_dim,
            device=prompt.device,
            dtype=self.token_proj.weight.dtype,
        )
        x = self._embed_bos(prompt)
        if target_embedding is not None:
            x[:, self.prompt_length :] += target_embedding
        return self._run(x, cache)[:, self.prompt_length :], cache

    def step(self, tokens: Tensor, positions: Tensor, cache: KVCache, target_embedding: Tensor | None = None) -> Tensor:
        """Feed T more tokens [B, T, D] at positions [B, T]; returns their contexts [B, T, C]."""
        x = self._embed_tokens(tokens, positions)
        if target_embedding is not None:
            x = x + target_embedding
        return self._run(x, cache)

    def _embed_bos(self, prompt: Tensor) -> Tensor:
        bos = self.bos.expand(prompt.shape[0], 1, -1)
        return torch.cat([self._embed_prompt(prompt), bos], dim=1)

    def _run(self, x: Tensor, cache: KVCache | None) -> Tensor:
        x = self.input_norm(x)
        x = self._run_blocks(self.encoder_blocks, x, causal=True, cache=cache)
        x = self.decoder_embed(self.encoder_norm(x))
        half = len(self.encoder_blocks)
        x = self._run_blocks(self.decoder_blocks, x, causal=True, cache=cache, first_layer=half)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.decoder_norm(x)


@runtime_checkable
class CausalBackboneFactory(BackboneFactory, Protocol):
    """A factory of this family only."""

    def __call__(self, *, token_dim: int, num_tokens: int, prompt_length: int) -> CausalTransformer:
        """Build it."""
        ...

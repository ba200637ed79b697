"""The causal decoder of AudioNTP and AudioMNTP (paper section 3.1)."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mntp.backbones.base import Backbone, BackboneFactory
from mntp.backbones.kv_cache import KVCache
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

    def new_cache(self, batch: int, num_parallel: int = 1, fixed: bool = False) -> KVCache:
        """A cache for the prompt and a clip, with room for alternatives (`feed`)."""
        weight = self.token_proj.weight
        return KVCache(
            num_layers=len(self.encoder_blocks) + len(self.decoder_blocks),
            batch_size=batch,
            num_heads=self.num_heads,
            max_length=self.prompt_length + self.num_tokens + num_parallel - 1,  # BOS takes the place of x^n
            head_dim=self.dim // self.num_heads,
            device=weight.device,
            dtype=weight.dtype,
            fixed=fixed,
        )

    def prefill(
        self,
        prompt: Tensor,
        cache: KVCache,
        tokens: Tensor,
        positions: Tensor,
        target_embedding: Tensor | None = None,
        num_parallel: int = 1,
    ) -> Tensor:
        """Run prompt, BOS and the tokens that are known already through an empty cache.

        Args:
            prompt: [B, P, C].
            cache: of `new_cache`.
            tokens: [B, T - 1, D] behind BOS; T = 1 without any.
            positions: [B, T - 1] int64.
            target_embedding: as in `feed`, BOS included.
            num_parallel: as in `feed`.

        Returns:
            [B, T - 1 + num_parallel, C].
        """
        x = torch.cat([self._embed_bos(prompt), self._embed_tokens(tokens, positions)], dim=1)
        x = _ask(x, target_embedding, num_parallel)
        z = self._feed(x, cache, num_parallel)
        cache.advance(x.shape[1] - (num_parallel - 1))
        return z[:, self.prompt_length :]

    def feed(
        self,
        tokens: Tensor,
        positions: Tensor,
        cache: KVCache,
        target_embedding: Tensor | None = None,
        num_parallel: int = 1,
    ) -> Tensor:
        """Feed T more tokens, and ask `num_parallel` questions of the last; the caller advances the cache by T.

        The copies of the last token, each with a target of its own, see all before it and not each other; the first
        of them stays.

        Args:
            tokens: [B, T, D].
            positions: [B, T] int64.
            cache: what was fed before.
            target_embedding: [B, T - 1 + num_parallel, C] added to the inputs (the position each is to predict), or
                None.
            num_parallel: copies of the last token.

        Returns:
            Contexts [B, T - 1 + num_parallel, C].
        """
        return self._feed(
            _ask(self._embed_tokens(tokens, positions), target_embedding, num_parallel), cache, num_parallel
        )

    def _feed(self, x: Tensor, cache: KVCache, num_parallel: int) -> Tensor:
        cache.open(x.shape[1], num_parallel)
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
        return self.decoder_norm(x)


def _ask(x: Tensor, target_embedding: Tensor | None, num_parallel: int) -> Tensor:
    """Repeat the last input for each of its questions, and add targets to the last inputs."""
    x = torch.cat([x[:, :-1], x[:, -1:].expand(-1, num_parallel, -1)], dim=1)
    if target_embedding is None:
        return x
    asking = target_embedding.shape[1]
    return torch.cat([x[:, :-asking], x[:, -asking:] + target_embedding], dim=1)


@runtime_checkable
class CausalBackboneFactory(BackboneFactory, Protocol):
    """A factory of this family only."""

    def __call__(self, *, token_dim: int, num_tokens: int, prompt_length: int) -> CausalTransformer:
        """Build it."""
        ...

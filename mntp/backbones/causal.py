"""The causal decoder of AudioNTP and AudioMNTP (paper section 3.1), and what these systems need of such a backbone."""

from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mntp.backbones.base import Backbone, BackboneFactory, TransformerBackbone
from mntp.backbones.kv_cache import Cache, KVCache
from mntp.layers import free_embedding


class CausalBackbone(Backbone):
    """A network over [prompt P | BOS | tokens] whose output t depends on prompt, BOS and the first t tokens alone.

    Output t of T is the context from which the target of input t is predicted: input 0 is BOS, input t > 0 the t-th
    token. Positions are *content* positions: the token of place i in the clip has position i, whatever was dropped
    before it.
    """

    @abstractmethod
    def forward(
        self, prompt: Tensor, tokens: Tensor, positions: Tensor, target_embedding: Tensor | None = None
    ) -> Tensor:
        """Contexts of a whole sequence.

        Args:
            prompt: [B, P, C].
            tokens: [B, T - 1, D], the tokens after BOS.
            positions: [B, T - 1] int64, their places in the clip.
            target_embedding: [B, T, C] added to the T inputs (the position that each is to predict), or None.

        Returns:
            [B, T, C].
        """

    @abstractmethod
    def new_cache(self, batch: int, num_parallel: int = 1, fixed: bool = False) -> Cache:
        """A cache for prompt and clip.

        Args:
            batch: B.
            num_parallel: the most target positions that one call predicts.
            fixed: make all calls of `feed` with T tokens run the same kernels on the same memory (CUDA graphs).
        """

    @abstractmethod
    def prefill(
        self,
        prompt: Tensor,
        cache: Any,
        tokens: Tensor,
        positions: Tensor,
        target_embedding: Tensor | None = None,
        num_parallel: int = 1,
    ) -> Tensor:
        """Run prompt, BOS and the tokens that are known already through an empty cache, and advance it.

        Args:
            prompt: [B, P, C].
            cache: from `new_cache`.
            tokens: [B, T - 1, D] after BOS; T = 1 without any.
            positions: [B, T - 1] int64.
            target_embedding: as in `feed`, BOS included.
            num_parallel: as in `feed`.

        Returns:
            [B, T - 1 + num_parallel, C].
        """

    @abstractmethod
    def feed(
        self,
        tokens: Tensor,
        positions: Tensor,
        cache: Any,
        target_embedding: Tensor | None = None,
        num_parallel: int = 1,
    ) -> Tensor:
        """Append T tokens and predict `num_parallel` target positions from copies of the last one.

        The copies see all before them and not each other. The caller advances the cache by T, which keeps the first
        of them.

        Args:
            tokens: [B, T, D].
            positions: [B, T] int64.
            cache: what was fed before.
            target_embedding: [B, T - 1 + num_parallel, C] added to the inputs (the position that each is to predict),
                or None.
            num_parallel: copies of the last token.

        Returns:
            Contexts [B, T - 1 + num_parallel, C].
        """


class CausalTransformer(TransformerBackbone, CausalBackbone):
    """MAR's blocks with a causal mask, encoder blocks first.

    A token of place i always gets row i of the position embeddings; BOS has a vector of its own.

    Args:
        bridge: keep MAR's norm and linear layer between its halves, which the image weights of the second half expect
            (ours: the paper doesn't say); False leaves them out.
        args: those of TransformerBackbone.
        sizes: those of TransformerBackbone.
    """

    def __init__(self, *args: Any, bridge: bool = True, **sizes: Any) -> None:
        super().__init__(*args, **sizes)
        self.bos = free_embedding(self.dim)
        if not bridge:
            self.encoder_norm = self.decoder_embed = nn.Identity()

    def forward(
        self, prompt: Tensor, tokens: Tensor, positions: Tensor, target_embedding: Tensor | None = None
    ) -> Tensor:
        """Contexts [B, T, C] of a whole sequence; see CausalBackbone."""
        x = torch.cat([self._embed_bos(prompt), self._embed_tokens(tokens, positions)], dim=1)
        if target_embedding is not None:
            x[:, self.prompt_length :] += target_embedding
        return self._run(x, cache=None)[:, self.prompt_length :]

    def new_cache(self, batch: int, num_parallel: int = 1, fixed: bool = False) -> KVCache:
        """Keys and values of prompt and clip, with room for the copies of the last token."""
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
        """Fill an empty cache; see CausalBackbone."""
        x = torch.cat([self._embed_bos(prompt), self._embed_tokens(tokens, positions)], dim=1)
        x = _repeat_last(x, target_embedding, num_parallel)
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
        """Append tokens to a cache; see CausalBackbone."""
        x = _repeat_last(self._embed_tokens(tokens, positions), target_embedding, num_parallel)
        return self._feed(x, cache, num_parallel)

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


def _repeat_last(x: Tensor, target_embedding: Tensor | None, num_parallel: int) -> Tensor:
    """Repeat the last input once per target position, and add target embeddings to the last inputs."""
    x = torch.cat([x[:, :-1], x[:, -1:].expand(-1, num_parallel, -1)], dim=1)
    if target_embedding is None:
        return x
    count = target_embedding.shape[1]
    return torch.cat([x[:, :-count], x[:, -count:] + target_embedding], dim=1)


@runtime_checkable
class CausalBackboneFactory(BackboneFactory, Protocol):
    """Builds a causal backbone."""

    def __call__(self, *, token_dim: int, num_tokens: int, prompt_length: int) -> CausalBackbone:
        """Build it."""
        ...

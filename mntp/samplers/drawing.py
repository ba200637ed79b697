"""One call of a head for the contexts of one decoding step."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from mntp.conditioning.guidance import guide_contexts
from mntp.heads import Head
from mntp.samplers.cuda_graphs import captured_sample
from mntp.samplers.noise import ClipNoise
from mntp.samplers.settings import Decoding


class TokenDrawer:
    """Draws tokens from contexts, with guidance in the space that `decoding` names.

    Args:
        head: distribution of a token.
        decoding: the head's sampling and guidance.
        noise: the draws.
        num_tokens: N, tokens of a clip, for the schedule of the guidance.
    """

    def __init__(self, head: Head, decoding: Decoding, noise: ClipNoise, num_tokens: int) -> None:
        self.head = head
        self.decoding = decoding
        self.noise = noise
        self.num_tokens = num_tokens
        self.guided = not decoding.guidance.is_off
        self._sample: Callable[..., Tensor] | None = None

    def branches(self, prompt: Tensor, fake_prompt: Tensor) -> Tensor:
        """Prompts [B, P, C] of the backbone; with guidance [2 B, P, C], both branches in one batch."""
        return torch.cat([prompt, fake_prompt]) if self.guided else prompt

    def draw(self, z: Tensor, num_known: int) -> Tensor:
        """Draw k tokens of each clip.

        Args:
            z: contexts [B, k, C]; with guidance [2 B, k, C], those of the fake prompt in the second half.
            num_known: tokens of each clip that are known already.

        Returns:
            [B, k, D] float32.
        """
        count, sampling = z.shape[1], self.decoding.head_sampling
        contexts = rearrange(z, "b k c -> (b k) c")
        noise = self.noise.normal(count, self.head.num_draws(sampling), self.head.token_dim)
        scale = self.decoding.guidance.at(num_known, self.num_tokens - num_known - count, self.num_tokens)
        conditional, unconditional = contexts.chunk(2) if self.guided else (contexts, None)
        if unconditional is not None and self.decoding.guides_contexts(self.head):
            conditional, unconditional = guide_contexts(conditional, unconditional, scale), None
        if self._sample is None:
            self._sample = captured_sample(self.head, z) if self.decoding.cuda_graphs else self.head.sample
        tokens = self._sample(
            conditional,
            rearrange(noise, "b k s d -> (b k) s d"),
            sampling,
            z_uncond=unconditional,
            guidance_scale=1.0 if unconditional is None else scale,  # each other number would be a graph of its own
        )
        return rearrange(tokens, "(b k) d -> b k d", k=count)

"""Left-to-right decoding with a key/value cache (paper section 3.1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from mntp.backbones import CausalTransformer
from mntp.heads import Head
from mntp.samplers.base import Decoding, Progress
from mntp.samplers.noise import ClipNoise


@torch.no_grad()
def decode_autoregressive(
    backbone: CausalTransformer,
    head: Head,
    prompt: Tensor,
    fake_prompt: Tensor,
    noise: ClipNoise,
    decoding: Decoding,
    target_embedding: Callable[[Tensor], Tensor | None] = lambda _: None,
    progress: Progress | None = None,
) -> Tensor:
    """Draw all tokens of a batch, one position after the other.

    Args:
        backbone: the causal backbone.
        head: distribution of a token.
        prompt: [B, P, C].
        fake_prompt: [B, P, C]; with guidance both branches run as one batch of 2 B.
        noise: the draws.
        decoding: the head's sampling and guidance.
        target_embedding: positions [B, T] -> [B, T, C], the embedding of the position asked for (AudioMNTP), or None.
        progress: called with (tokens drawn, tokens in all) after each position.

    Returns:
        [B, N, D] float32.
    """
    batch, num_tokens = prompt.shape[0], backbone.num_tokens
    guided = not decoding.guidance.is_off
    if guided:
        prompt = torch.cat([prompt, fake_prompt])

    def ask(position: int) -> Tensor | None:
        return target_embedding(torch.full((prompt.shape[0], 1), position, device=prompt.device))

    tokens = prompt.new_zeros(batch, num_tokens, head.token_dim, dtype=torch.float32)
    z, cache = backbone.prefill(prompt, ask(0))
    for position in range(num_tokens):
        if position > 0:
            last = tokens[:, position - 1 : position].repeat(2 if guided else 1, 1, 1)
            at = torch.full((prompt.shape[0], 1), position - 1, device=prompt.device)
            z = backbone.step(last, at, cache, ask(position))
        contexts = z[:, -1].chunk(2) if guided else (z[:, -1], None)
        tokens[:, position] = head.sample(
            contexts[0],
            noise.normal(head.num_draws(decoding), head.token_dim),
            decoding,
            z_uncond=contexts[1],
            guidance_scale=decoding.guidance.at(position, num_tokens - position - 1, num_tokens),
        )
        if progress is not None:
            progress(position + 1, num_tokens)
    return tokens

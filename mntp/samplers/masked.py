"""MAR's decoding: several positions at a time, in random order, by a cosine schedule (arXiv 2406.11838, 3.4)."""

import math
from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from mntp.backbones import MaskedEncoderDecoder
from mntp.backbones.base import gather_rows
from mntp.heads import Head
from mntp.samplers.cuda_graphs import captured_sample
from mntp.samplers.noise import ClipNoise
from mntp.samplers.orders import behind_known, leading
from mntp.samplers.settings import DecodingState, MaskedDecoding


def cosine_counts(num_tokens: int, num_steps: int) -> list[int]:
    """Tokens revealed at each step: after step s, floor(N cos(pi/2 s/S)) stay hidden, at least one token a step.

    With more steps than tokens the list is shorter than `num_steps`.
    """
    counts, hidden = [], num_tokens
    for step in range(1, num_steps + 1):
        if hidden == 0:
            break
        after = max(1, math.floor(num_tokens * math.cos(math.pi / 2 * step / num_steps)))
        after = 0 if step == num_steps else min(hidden - 1, after)
        counts.append(hidden - after)
        hidden = after
    return counts


@torch.no_grad()
def decode_masked(
    backbone: MaskedEncoderDecoder,
    head: Head,
    prompt: Tensor,
    fake_prompt: Tensor,
    noise: ClipNoise,
    decoding: MaskedDecoding,
    known: Tensor,
    orders: Tensor | None = None,
) -> Iterator[DecodingState]:
    """Draw all tokens of a batch, the positions of each step at once.

    Args:
        backbone: the masked encoder-decoder.
        head: distribution of a token.
        prompt: [B, P, C].
        fake_prompt: [B, P, C]; with guidance both branches run as one batch of 2 B.
        noise: the draws.
        decoding: order, steps, the head's sampling and guidance.
        known: [B, m, D] tokens at the start of each clip that are given; m = 0 without any.
        orders: [B, N] int64, positions in the order of their revelation; None draws or counts them by
            `decoding.order`, behind those that are known.

    Yields:
        What is drawn, after each step.
    """
    batch, num_known, num_tokens = prompt.shape[0], known.shape[1], backbone.num_tokens
    guided = not decoding.guidance.is_off
    if guided:
        prompt = torch.cat([prompt, fake_prompt])
    if orders is None:
        orders = behind_known(noise.orders(num_tokens), num_known)
        if decoding.order == "causal":
            orders = torch.arange(num_tokens, device=prompt.device).expand(batch, -1)

    tokens = prompt.new_zeros(batch, num_tokens, head.token_dim, dtype=torch.float32)
    mask = torch.ones(batch, num_tokens, dtype=torch.bool, device=prompt.device)
    tokens[:, :num_known], mask[:, :num_known] = known, False
    sample = captured_sample(head, prompt)
    revealed = num_known
    for count in cosine_counts(num_tokens - num_known, decoding.calls(num_tokens)):
        now = orders[:, revealed : revealed + count].sort(dim=1).values
        copies = 2 if guided else 1
        z = gather_rows(backbone(prompt, tokens.repeat(copies, 1, 1), mask.repeat(copies, 1)), now.repeat(copies, 1))
        contexts = rearrange(z, "b t c -> (b t) c").chunk(2) if guided else (rearrange(z, "b t c -> (b t) c"), None)
        draws = noise.normal(count, head.num_draws(decoding), head.token_dim)
        drawn = sample(
            contexts[0],
            rearrange(draws, "b t s d -> (b t) s d"),
            decoding,
            z_uncond=contexts[1],
            guidance_scale=decoding.guidance.at(revealed, num_tokens - revealed - count, num_tokens),
        )
        tokens.scatter_(1, now[..., None].expand(-1, -1, head.token_dim), rearrange(drawn, "(b t) d -> b t d", b=batch))
        mask.scatter_(1, now, value=False)
        revealed += count
        yield DecodingState(tokens, revealed, leading(~mask))
    if num_known == num_tokens:
        yield DecodingState(tokens, num_tokens, num_tokens)

"""MAR's decoding: several positions at a time, in random order, by a cosine schedule (arXiv 2406.11838, 3.4)."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mntp.backbones import MaskedEncoderDecoder
from mntp.backbones.base import gather_rows
from mntp.samplers.drawing import TokenDrawer
from mntp.samplers.orders import count_leading, put_known_first
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
    drawer: TokenDrawer,
    prompt: Tensor,
    known: Tensor,
    decoding: MaskedDecoding,
    orders: Tensor | None = None,
) -> Iterator[DecodingState]:
    """Draw all tokens of a batch, the positions of each step at once.

    Args:
        backbone: the masked encoder-decoder.
        drawer: draws tokens from contexts.
        prompt: [B, P, C], or [2 B, P, C] with the fake prompts in the second half (`TokenDrawer.branches`).
        known: [B, m, D] tokens at the start of each clip that are given; m = 0 without any.
        decoding: order and steps.
        orders: [B, N] int64, positions in the order in which they are revealed; None draws or counts them, as
            `decoding.order` says, after those that are known.

    Yields:
        What is drawn, after each step.
    """
    (batch, num_known, token_dim), num_tokens = known.shape, backbone.num_tokens
    copies = len(prompt) // batch
    if orders is None:
        orders = put_known_first(drawer.noise.orders(num_tokens), num_known)
        if decoding.order == "causal":
            orders = torch.arange(num_tokens, device=prompt.device).expand(batch, -1)

    tokens = prompt.new_zeros(batch, num_tokens, token_dim, dtype=torch.float32)
    mask = torch.ones(batch, num_tokens, dtype=torch.bool, device=prompt.device)
    tokens[:, :num_known], mask[:, :num_known] = known, False
    revealed = num_known
    for count in cosine_counts(num_tokens - num_known, decoding.calls(num_tokens)):
        now = orders[:, revealed : revealed + count].sort(dim=1).values
        z = gather_rows(backbone(prompt, tokens.repeat(copies, 1, 1), mask.repeat(copies, 1)), now.repeat(copies, 1))
        tokens.scatter_(1, now[..., None].expand(-1, -1, token_dim), drawer.draw(z, revealed))
        mask.scatter_(1, now, value=False)
        revealed += count
        yield DecodingState(tokens, revealed, count_leading(~mask), num_tokens)
    if num_known == num_tokens:
        yield DecodingState(tokens, num_tokens, num_tokens, num_tokens)

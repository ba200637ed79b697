"""Decoding with a key/value cache, each token after those before it (paper section 3.1), one or several at a time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from einops import rearrange
from torch import Tensor

from mntp.backbones import CausalTransformer
from mntp.heads import Head
from mntp.samplers.cuda_graphs import Captured, captured_sample
from mntp.samplers.noise import ClipNoise
from mntp.samplers.orders import leading
from mntp.samplers.settings import Decoding, DecodingState


@torch.no_grad()
def decode_autoregressive(
    backbone: CausalTransformer,
    head: Head,
    prompt: Tensor,
    fake_prompt: Tensor,
    noise: ClipNoise,
    decoding: Decoding,
    known: Tensor,
    counts: Sequence[int],
    orders: Tensor | None = None,
    target_embedding: Callable[[Tensor], Tensor | None] = lambda _: None,
) -> Iterator[DecodingState]:
    """Draw the tokens of a batch.

    Input i of the backbone is the i-th token in the order of decoding (BOS for i = 0) and asks for the (i + 1)-th; the
    newest one is repeated to ask for several. Each token passes through the backbone once, or as many times as it asks.

    Args:
        backbone: the causal backbone.
        head: distribution of a token.
        prompt: [B, P, C].
        fake_prompt: [B, P, C]; with guidance both branches run as one batch of 2 B.
        noise: the draws.
        decoding: the head's sampling and guidance.
        known: [B, m, D] tokens that are given, the first m in the order of decoding; m = 0 without any.
        counts: how many tokens each call asks for; more than one needs `target_embedding`.
        orders: [B, N] int64, the positions in the order of decoding; None is left to right.
        target_embedding: positions [B, T] -> [B, T, C], the embedding of the position asked for (AudioMNTP), or None.

    Yields:
        What is drawn, after each call; the tensor holds as many tokens as are known and asked for.
    """
    batch, num_known, token_dim = known.shape
    num_tokens = num_known + sum(counts)
    guided = not decoding.guidance.is_off
    copies = 2 if guided else 1
    if guided:
        prompt = torch.cat([prompt, fake_prompt])
    in_order = orders is None
    if orders is None:
        orders = torch.arange(num_tokens, device=prompt.device).expand(batch, -1)
    drawn = prompt.new_zeros(batch, num_tokens, token_dim, dtype=torch.float32)  # in the order of decoding
    drawn[:, :num_known] = known
    tokens = drawn if in_order else drawn.clone()
    revealed = torch.arange(num_tokens, device=prompt.device).expand(batch, -1) < num_known

    def inputs(start: int, end: int) -> tuple[Tensor, Tensor]:
        return drawn[:, start:end].repeat(copies, 1, 1), orders[:, start:end].repeat(copies, 1)

    def targets(start: int, end: int) -> Tensor | None:
        return target_embedding(orders[:, start:end].repeat(copies, 1))

    sample = captured_sample(head, prompt)
    cache = backbone.new_cache(len(prompt), max(counts, default=1), fixed=prompt.is_cuda)
    feed = Captured(backbone.feed)
    done = num_fed = num_known
    for call, count in enumerate(counts):
        if call == 0:
            z = backbone.prefill(prompt, cache, *inputs(0, done), targets(0, done + count), count)
        else:
            z = feed(*inputs(num_fed, done), cache, targets(num_fed + 1, done + count), count)
            cache.advance(done - num_fed)
            num_fed = done
        z = z[:, -count:]
        contexts = rearrange(z, "b t c -> (b t) c").chunk(copies)
        draws = noise.normal(count, head.num_draws(decoding), token_dim)
        now = sample(
            contexts[0],
            rearrange(draws, "b t s d -> (b t) s d"),
            decoding,
            z_uncond=contexts[1] if guided else None,
            guidance_scale=decoding.guidance.at(done, backbone.num_tokens - done - count, backbone.num_tokens),
        )
        drawn[:, done : done + count] = rearrange(now, "(b t) d -> b t d", b=batch)
        if not in_order:
            places = orders[:, done : done + count]
            tokens.scatter_(1, places[..., None].expand(-1, -1, token_dim), drawn[:, done : done + count])
            revealed = revealed.scatter(1, places, value=True)
        done += count
        yield DecodingState(tokens, done, done if in_order else leading(revealed))
    if not counts:
        yield DecodingState(tokens, done, done)

"""Decoding with a key/value cache, each token after those before it (paper section 3.1), one or several at a time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mntp.backbones import CausalBackbone
from mntp.samplers.cuda_graphs import Captured
from mntp.samplers.drawing import TokenDrawer
from mntp.samplers.orders import count_leading
from mntp.samplers.settings import DecodingState


@torch.no_grad()
def decode_autoregressive(
    backbone: CausalBackbone,
    drawer: TokenDrawer,
    prompt: Tensor,
    known: Tensor,
    counts: Sequence[int],
    orders: Tensor | None = None,
    target_embedding: Callable[[Tensor], Tensor | None] = lambda _: None,
) -> Iterator[DecodingState]:
    """Draw the tokens of a batch.

    Input i of the backbone is the i-th token in the order of decoding (BOS for i = 0) and predicts the (i + 1)-th. The
    newest token is repeated to predict several. Each token passes through the backbone once, or as many times as it
    predicts.

    Args:
        backbone: the causal backbone.
        drawer: draws tokens from contexts.
        prompt: [B, P, C], or [2 B, P, C] with the fake prompts in the second half (`TokenDrawer.branches`).
        known: [B, m, D] tokens that are given, the first m in the order of decoding; m = 0 without any.
        counts: how many tokens each call predicts; more than one needs `target_embedding`.
        orders: [B, N] int64, the positions in the order of decoding; None is left to right.
        target_embedding: positions [B, T] -> [B, T, C], the embedding of the position to predict (AudioMNTP), or None.

    Yields:
        What is drawn, after each call; the tensor holds as many tokens as are known and drawn in the end.
    """
    batch, num_known, token_dim = known.shape
    num_tokens, copies = num_known + sum(counts), len(prompt) // batch
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

    graphs = drawer.decoding.cuda_graphs and prompt.is_cuda
    cache = backbone.new_cache(len(prompt), max(counts, default=1), fixed=graphs)
    feed = Captured(backbone.feed) if graphs else backbone.feed
    done = num_fed = num_known
    for call, count in enumerate(counts):
        if call == 0:
            z = backbone.prefill(prompt, cache, *inputs(0, done), targets(0, done + count), count)
        else:
            z = feed(*inputs(num_fed, done), cache, targets(num_fed + 1, done + count), count)
            cache.advance(done - num_fed)
            num_fed = done
        drawn[:, done : done + count] = drawer.draw(z[:, -count:], done)
        if not in_order:
            places = orders[:, done : done + count]
            tokens.scatter_(1, places[..., None].expand(-1, -1, token_dim), drawn[:, done : done + count])
            revealed = revealed.scatter(1, places, value=True)
        done += count
        yield DecodingState(tokens, done, done if in_order else count_leading(revealed), num_tokens)
    if not counts:
        yield DecodingState(tokens, done, done, num_tokens)

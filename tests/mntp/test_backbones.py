"""Causality by gradient, cached equals uncached, hidden tokens are never looked at."""

import pytest
import torch

from mntp.backbones import CausalTransformer, MaskedEncoderDecoder

B, N, D, P, C = 2, 7, 3, 4, 16
SIZES = {"dim": C, "depth": 4, "num_heads": 2, "dropout": 0.0}


def causal() -> CausalTransformer:
    torch.manual_seed(0)
    return CausalTransformer(D, N, P, **SIZES).double()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randn(B, P, C, generator=generator, dtype=torch.float64)
    tokens = torch.randn(B, N - 1, D, generator=generator, dtype=torch.float64)
    return prompt, tokens, torch.arange(N - 1).expand(B, -1)


def test_a_context_depends_on_every_earlier_token_and_on_no_later_one() -> None:
    backbone, (prompt, tokens, positions) = causal(), inputs()
    tokens.requires_grad_()
    for place in range(N):
        z = backbone(prompt, tokens, positions)[:, place]
        (gradient,) = torch.autograd.grad(z.square().sum(), tokens)
        seen = gradient.abs().sum(dim=(0, 2)) > 0
        assert seen.tolist() == [earlier < place for earlier in range(N - 1)]


def test_every_context_depends_on_the_prompt() -> None:
    backbone, (prompt, tokens, positions) = causal(), inputs()
    prompt.requires_grad_()
    for place in range(N):
        (gradient,) = torch.autograd.grad(backbone(prompt, tokens, positions)[:, place].square().sum(), prompt)
        assert (gradient.abs().sum(dim=(0, 2)) > 0).all()


@pytest.mark.parametrize("with_target", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_cached_equals_uncached(chunk: int, with_target: bool) -> None:
    backbone, (prompt, tokens, positions) = causal(), inputs()
    target = torch.randn(B, N, C, dtype=torch.float64) if with_target else None
    whole = backbone(prompt, tokens, positions, target)
    first, cache = backbone.prefill(prompt, None if target is None else target[:, :1])
    parts = [first]
    for start in range(0, N - 1, chunk):
        now = slice(start, start + chunk)
        shifted = None if target is None else target[:, 1:][:, now]
        parts.append(backbone.step(tokens[:, now], positions[:, now], cache, shifted))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-12, atol=1e-12)
    assert cache.length == P + N


def test_dropping_keeps_each_token_its_own_position() -> None:
    """The last of three fed tokens gives the same context wherever its row of the position table is the same."""
    backbone, (prompt, tokens, _) = causal(), inputs()
    kept = torch.tensor([[0, 3, 5]]).expand(B, -1)
    z = backbone(prompt, tokens[:, :3], kept)
    moved = backbone(prompt, tokens[:, :3], torch.tensor([[0, 1, 2]]).expand(B, -1))
    torch.testing.assert_close(z[:, :2], moved[:, :2])
    assert not torch.allclose(z[:, 2], moved[:, 2])


def test_the_masked_backbone_never_looks_at_hidden_values() -> None:
    torch.manual_seed(0)
    backbone = MaskedEncoderDecoder(D, N, P, **SIZES).double()
    prompt = torch.randn(B, P, C, dtype=torch.float64)
    tokens = torch.randn(B, N, D, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, True, True, False, False, True], [False, True, True, False, True, True, False]])
    (gradient,) = torch.autograd.grad(backbone(prompt, tokens, mask).square().sum(), tokens)
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, ~mask)


@pytest.mark.parametrize(("num_heads", "depth", "match"), [(3, 4, "num_heads"), (2, 3, "depth")])
def test_sizes_that_do_not_fit(num_heads: int, depth: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CausalTransformer(D, N, P, dim=C, num_heads=num_heads, depth=depth)


def test_another_prompt_length_is_refused() -> None:
    backbone, (prompt, tokens, positions) = causal(), inputs()
    with pytest.raises(ValueError, match=f"expected {P} prompt positions, got {P - 1}"):
        backbone(prompt[:, 1:], tokens, positions)


def test_the_bridge_between_the_halves_is_a_key_and_changes_no_other_weight() -> None:
    torch.manual_seed(0)
    without = CausalTransformer(D, N, P, bridge=False, **SIZES).double()
    missing = causal().state_dict().keys() - without.state_dict().keys()
    assert missing == {f"{part}.{kind}" for part in ("encoder_norm", "decoder_embed") for kind in ("weight", "bias")}
    assert all(torch.equal(tensor, causal().state_dict()[name]) for name, tensor in without.state_dict().items())

    prompt, tokens, positions = inputs()
    whole = without(prompt, tokens, positions)
    assert not torch.allclose(whole, causal()(prompt, tokens, positions))
    first, cache = without.prefill(prompt)
    steps = [without.step(tokens[:, t : t + 1], positions[:, t : t + 1], cache) for t in range(N - 1)]
    torch.testing.assert_close(torch.cat([first, *steps], dim=1), whole, rtol=1e-12, atol=1e-12)

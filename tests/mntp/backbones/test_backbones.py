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


@torch.no_grad()
@pytest.mark.parametrize("with_target", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_cached_equals_uncached(chunk: int, with_target: bool) -> None:
    backbone, (prompt, tokens, positions) = causal(), inputs()
    target = torch.randn(B, N, C, dtype=torch.float64) if with_target else None
    whole = backbone(prompt, tokens, positions, target)
    cache = backbone.new_cache(B)
    parts = [
        backbone.prefill(prompt, cache, tokens[:, :0], positions[:, :0], None if target is None else target[:, :1])
    ]
    for start in range(0, N - 1, chunk):
        now = slice(start, start + chunk)
        shifted = None if target is None else target[:, 1:][:, now]
        parts.append(backbone.feed(tokens[:, now], positions[:, now], cache, shifted))
        cache.advance(parts[-1].shape[1])
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-12, atol=1e-12)
    assert cache.length == P + N


@torch.no_grad()
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_questions_asked_together_are_those_asked_alone(known: int, fixed: bool) -> None:
    """k copies of the newest token: each gives the context of a sequence that ends with it and skips to its target."""
    backbone, (prompt, tokens, positions) = causal(), inputs()
    targets = torch.randn(B, N, C, dtype=torch.float64)
    k = 3
    cache = backbone.new_cache(B, k, fixed=fixed)
    together = backbone.prefill(prompt, cache, tokens[:, :known], positions[:, :known], targets[:, : known + k], k)
    assert together.shape == (B, known + k, C)
    assert cache.length == P + 1 + known
    for j in range(k):
        asked = torch.cat([targets[:, :known], targets[:, known + j : known + j + 1]], dim=1)
        alone = backbone(prompt, tokens[:, :known], positions[:, :known], asked)
        torch.testing.assert_close(together[:, known + j], alone[:, known], rtol=1e-12, atol=1e-12)
    # Then the three tokens they asked for are fed, the newest asking twice: the first question alone has stayed.
    fed = slice(known, known + k)
    z = backbone.feed(tokens[:, fed], positions[:, fed], cache, targets[:, known + 1 : known + 1 + k + 1], 2)
    for j in range(2):
        asked = torch.cat([targets[:, : known + k], targets[:, known + k + j : known + k + j + 1]], dim=1)
        alone = backbone(prompt, tokens[:, : known + k], positions[:, : known + k], asked)
        torch.testing.assert_close(z[:, k - 1 + j], alone[:, -1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(z[:, : k - 1], alone[:, known + 1 : -1], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_questions_do_not_see_each_other() -> None:
    """Changing one copy's target changes its own context and no other; changing an earlier one's changes all."""
    backbone, (prompt, tokens, positions) = causal(), inputs()
    targets = torch.randn(B, 2 + 3, C, dtype=torch.float64)

    def contexts(targets: torch.Tensor) -> torch.Tensor:
        return backbone.prefill(prompt, backbone.new_cache(B, 3), tokens[:, :2], positions[:, :2], targets, 3)

    plain = contexts(targets)
    for asked in range(5):
        changed = targets.clone()
        changed[:, asked, 0] += 1
        moved = (contexts(changed) - plain).abs().sum(dim=(0, 2)) > 1e-9
        assert moved.tolist() == [False] * asked + (
            [True] * (5 - asked) if asked < 2 else [True] + [False] * (4 - asked)
        )


def test_a_cache_holds_prompt_and_clip_and_no_more() -> None:
    cache = causal().new_cache(B)
    assert cache.max_length == P + N
    assert cache.num_bytes == 4 * 2 * B * (P + N) * C * 8  # layers, keys and values, float64
    cache.advance(P + N)
    with pytest.raises(AssertionError, match="cache holds"):
        cache.open(1)


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


@torch.no_grad()
def test_the_bridge_between_the_halves_is_a_key_and_changes_no_other_weight() -> None:
    torch.manual_seed(0)
    without = CausalTransformer(D, N, P, bridge=False, **SIZES).double()
    missing = causal().state_dict().keys() - without.state_dict().keys()
    assert missing == {f"{part}.{kind}" for part in ("encoder_norm", "decoder_embed") for kind in ("weight", "bias")}
    assert all(torch.equal(tensor, causal().state_dict()[name]) for name, tensor in without.state_dict().items())

    prompt, tokens, positions = inputs()
    whole = without(prompt, tokens, positions)
    assert not torch.allclose(whole, causal()(prompt, tokens, positions))
    cache = without.new_cache(B)
    first = without.prefill(prompt, cache, tokens[:, :3], positions[:, :3])
    rest = without.feed(tokens[:, 3:], positions[:, 3:], cache)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole, rtol=1e-12, atol=1e-12)

"""What each row of Table 3 feeds, asks and may not see; held-out losses; front ends; parameter groups."""

from dataclasses import replace
from itertools import product
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mntp.batch import TextStates, TokenBatch
from mntp.heads import HEADS
from mntp.masking import random_mask
from mntp.seeding import make_generator
from mntp.systems import AudioMNTP, AudioNTP, AudioSystem, audio_mar, audio_mntp, audio_ntp
from mntp.systems.optimisation import Optimisation, parameter_groups
from tests.systems_support import ROWS, D, N, tiny_batch, tiny_system

CAUSAL = [row for row in ROWS if row != "K"]


def task(row: str, ratio: float, seed: int = 0) -> tuple[Any, Tensor]:
    system, tokens = tiny_system(row), tiny_batch(8).tokens
    assert isinstance(system, AudioNTP)
    return system.task(tokens, ratio, torch.Generator().manual_seed(seed)), tokens


def token_at(tokens: Tensor, positions: Tensor) -> Tensor:
    return torch.stack([clip[at] for clip, at in zip(tokens, positions, strict=True)])


def double(batch: TokenBatch) -> TokenBatch:
    text = {name: TextStates(s.states.double(), s.lengths) for name, s in batch.text.items()}
    return replace(batch, tokens=batch.tokens.double(), text=text)


def reordered(batch: TokenBatch, order: Tensor) -> TokenBatch:
    """The clips `order` of a batch."""
    text = {name: TextStates(s.states[order], s.lengths[order]) for name, s in batch.text.items()}
    captions = [batch.captions[clip] for clip in order.tolist()]
    return TokenBatch(batch.tokens[order], batch.valid[order], text, batch.index[order], captions)


def test_row_a_feeds_all_but_the_last_and_asks_for_the_next() -> None:
    made, tokens = task("A", 0.0)
    assert torch.equal(made.inputs, tokens[:, :-1])
    assert torch.equal(made.positions, torch.arange(N - 1).expand(8, -1))
    assert torch.equal(made.targets, torch.arange(N).expand(8, -1))


@pytest.mark.parametrize("row", ["C", "D"])
def test_rows_c_and_d_keep_the_length_and_ask_for_the_next_everywhere(row: str) -> None:
    made, tokens = task(row, 0.5)
    hidden = (made.inputs != tokens[:, :-1]).any(dim=-1)
    assert 8 * (N // 2 - 1) <= hidden.sum() <= 8 * N // 2  # x^n may be among the hidden ones; it is no input
    assert (made.inputs[hidden] == 0).all() if row == "C" else (made.inputs[hidden] != 0).all()
    assert torch.equal(made.targets, torch.arange(N).expand(8, -1))


def test_row_e_asks_for_the_immediate_successor() -> None:
    made, tokens = task("E", 0.5)
    assert torch.equal(made.inputs, token_at(tokens, made.positions))
    assert torch.equal(made.targets[:, 0], torch.zeros(8, dtype=torch.long))
    assert torch.equal(made.targets[:, 1:], made.positions + 1)
    assert made.inputs.shape[1] == N - N // 2


def test_row_e_scores_nothing_behind_the_last_token() -> None:
    system, batch = tiny_system("E"), tiny_batch(8)
    pairs = system.pairs(batch.tokens, system.prompt(batch.text), 0.5, torch.Generator().manual_seed(0))
    assert pairs.scored is not None
    assert torch.equal(pairs.scored, pairs.positions < N)
    assert (~pairs.scored).any()  # some clip kept x^n


@pytest.mark.parametrize("row", ["G", "I"])
def test_row_g_asks_each_kept_token_of_the_kept_one_before_it(row: str) -> None:
    made, tokens = task(row, 0.5)
    assert torch.equal(made.positions, made.targets[:, :-1])
    assert torch.equal(made.inputs, token_at(tokens, made.positions))
    assert made.targets.shape[1] == N - N // 2
    assert (made.targets.diff(dim=1) > 0).all()
    assert (made.targets.diff(dim=1) > 1).any()  # it skips


def test_the_target_embedding_is_the_only_difference_of_row_i() -> None:
    g, i = tiny_system("G"), tiny_system("I")
    assert {n for n, _ in g.named_parameters()} - {n for n, _ in i.named_parameters()} == {"target_position_embed"}
    assert isinstance(g, AudioMNTP)
    targets = torch.tensor([[3, 5]])
    assert g.target_position_embed is not None
    assert torch.equal(g.target_embedding(targets), g.target_position_embed[targets])


def nothing_dropped(position: Tensor | None = None) -> tuple[AudioNTP, AudioMNTP, TokenBatch]:
    """AudioNTP and an AudioMNTP of the same weights, whose target embedding is `position` or zero."""
    ntp, mntp = tiny_system("A").double(), tiny_system("G").double()
    assert isinstance(ntp, AudioNTP) and isinstance(mntp, AudioMNTP)
    missing = mntp.load_state_dict(ntp.state_dict(), strict=False).missing_keys
    assert missing == ["target_position_embed"]
    assert mntp.target_position_embed is not None
    with torch.no_grad():
        mntp.target_position_embed.zero_()
        if position is not None:
            mntp.target_position_embed += position
    mntp.target_position_embed.requires_grad_(False)
    return ntp, mntp, double(tiny_batch())


def test_nothing_dropped_mntp_is_ntp_bit_for_bit() -> None:
    """Same inputs, places and targets; with the target embedding fixed at zero the same loss, and the same gradient."""
    ntp, mntp, batch = nothing_dropped()
    a, g = (system.task(batch.tokens, 0.0, make_generator(1)) for system in (ntp, mntp))
    assert (
        torch.equal(a.inputs, g.inputs) and torch.equal(a.positions, g.positions) and torch.equal(a.targets, g.targets)
    )
    losses = [system.loss(batch, 0.0, make_generator(2)) for system in (ntp, mntp)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    gradients = dict(mntp.named_parameters())
    for name, parameter in ntp.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-10, atol=1e-14)
    assert not torch.equal(losses[1], mntp.loss(batch, 0.5, make_generator(2)))


def test_nothing_dropped_the_target_embedding_is_a_constant_beside_the_content_position() -> None:
    """Any fixed embedding is AudioNTP's, moved into BOS (place 0) and the rows of content positions i (place i + 1)."""
    ntp, mntp, batch = nothing_dropped(torch.randn(N, 16, generator=make_generator(3), dtype=torch.float64))
    assert mntp.target_position_embed is not None
    assert ntp.loss(batch, 0.0, make_generator(2)) != mntp.loss(batch, 0.0, make_generator(2))
    with torch.no_grad():
        ntp.backbone.bos += mntp.target_position_embed[0]
        ntp.backbone.position_embed[ntp.prompt.length : -1] += mntp.target_position_embed[1:]
    losses = [system.loss(batch, 0.0, make_generator(2)) for system in (ntp, mntp)]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


@pytest.mark.parametrize("row", ROWS)
def test_a_token_never_reaches_the_context_that_predicts_it(row: str) -> None:
    """By gradient: the context for a position depends on no token at or after it, nor (drop, MAR) on hidden ones."""
    system, batch = tiny_system(row).eval(), tiny_batch()
    tokens = batch.tokens.clone().requires_grad_()
    pairs = system.pairs(tokens, system.prompt(batch.text), 0.5, torch.Generator().manual_seed(0))
    scored = set(map(tuple, zip(*[i.tolist() for i in torch.where(pairs.positions < N)], strict=True)))
    for clip, place in scored:
        target = int(pairs.positions[clip, place])
        (gradient,) = torch.autograd.grad(pairs.z[clip, place].square().sum(), tokens, retain_graph=True)
        touched = gradient.abs().sum(dim=-1)
        assert (touched[torch.arange(len(tokens)) != clip] == 0).all()
        if row == "K":
            assert (touched[clip, pairs.positions[clip]] == 0).all()
        else:
            assert (touched[clip, pairs.positions[clip, place:].clamp(max=N - 1)] == 0).all()
            assert row == "shuffled" or (touched[clip, target:] == 0).all()


@pytest.mark.parametrize("ratio", [0.3, 0.7])
@pytest.mark.parametrize("row", ROWS)
def test_hidden_tokens_reach_no_context_and_all_others_before_the_target_do(
    monkeypatch: pytest.MonkeyPatch, row: str, ratio: float
) -> None:
    """By gradient, against the mask that the row itself has drawn; row A hides nothing."""
    system, batch = tiny_system(row).eval().double(), double(tiny_batch(2))
    masks: list[Tensor] = []

    def remember(*arguments: Any) -> Tensor:
        masks.append(random_mask(*arguments))
        return masks[-1]

    for module in (audio_ntp, audio_mntp, audio_mar):
        monkeypatch.setattr(module, "random_mask", remember)
    tokens = batch.tokens.clone().requires_grad_()
    prompt = system.prompt(batch.text)
    pairs = system.pairs(tokens, prompt, 0.0 if row == "A" else ratio, make_generator(1))
    (mask,) = masks
    assert mask.any() == (row != "A")
    for clip, place in product(range(2), range(pairs.positions.shape[1])):
        target = int(pairs.positions[clip, place])
        (gradient,) = torch.autograd.grad(pairs.z[clip, place].square().sum(), tokens, retain_graph=True)
        visible = ~mask[clip]
        if row == "shuffled":
            visible[pairs.positions[clip, place:]] = False
        elif row != "K":
            visible &= torch.arange(N) < target
        expected = torch.zeros(2, N, dtype=torch.bool)
        expected[clip] = visible
        assert torch.equal(gradient.abs().sum(dim=-1) > 0, expected)


@pytest.mark.parametrize("row", ROWS)
def test_the_loss_does_not_depend_on_the_order_of_the_batch(monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    """With a clip's mask and prompt kept with the clip, and a head that draws nothing."""
    system, batch = tiny_system(row, head="MixtureHead", prompt_drop=0.0).double(), double(tiny_batch(6))
    if row == "D":  # what it shows in masked places is drawn as well
        monkeypatch.setattr(system, "corruption", lambda x, mask, _: torch.where(mask[..., None], x.cos(), x))
    monkeypatch.setattr(audio_mntp, "in_random_order", lambda kept, _: kept.roll(2, dims=1))
    losses = []
    for order in (torch.arange(6), torch.tensor([3, 0, 5, 1, 4, 2])):
        mask = random_mask(6, N, N // 2, make_generator(1))[order]
        for module in (audio_ntp, audio_mntp, audio_mar):
            monkeypatch.setattr(module, "random_mask", lambda *_, mask=mask: mask)
        losses.append(system.loss(reordered(batch, order), 0.5, make_generator(2)))
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    swapped = reordered(batch, order)
    swapped.tokens = batch.tokens  # captions of other clips
    assert (system.loss(swapped, 0.5, make_generator(2)) / losses[0]).item() != pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("row", ROWS)
def test_every_part_learns(row: str) -> None:
    system, batch = tiny_system(row, prompt_drop=0.5), tiny_batch(16)
    system.loss(batch, 0.5, torch.Generator().manual_seed(0)).backward()
    idle = [name for name, p in system.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("row", ROWS)
def test_the_loss_is_a_function_of_its_arguments(row: str) -> None:
    system, batch = tiny_system(row), tiny_batch()
    losses = [system.loss(batch, 0.5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_prompts_are_dropped_at_the_stated_rate() -> None:
    system, batch = tiny_system("A", prompt_drop=0.3), tiny_batch(64)
    seen = []
    system.prompt.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    for seed in range(40):
        system.loss(batch, 0.0, torch.Generator().manual_seed(seed))
    assert float(torch.cat(seen).float().mean()) == pytest.approx(0.3, abs=4 * (0.21 / 2560) ** 0.5)


@pytest.mark.parametrize("row", ROWS)
def test_the_held_out_loss_depends_on_the_clip_alone(row: str) -> None:
    system, batch = tiny_system(row).eval(), tiny_batch(6)
    losses, _ = system.held_out_losses(batch)
    order = torch.tensor([4, 2, 0])
    part = reordered(batch, order)
    again, sound = system.held_out_losses(part)
    torch.testing.assert_close(again, losses[order], rtol=1e-4, atol=1e-5)
    if row != "K":
        assert torch.equal(sound, part.valid)


@pytest.mark.parametrize("row", ROWS)
def test_held_out_losses_of_sound_and_padding_go_by_the_predicted_tokens(row: str) -> None:
    """A loss counts as sound exactly where the token that it is the loss of holds sound."""
    system, batch = tiny_system(row, head="MixtureHead").eval(), tiny_batch(6)
    predicted = system.held_out_pairs(batch.tokens, system.prompt(batch.text), batch.index).positions.tolist()
    losses, sound = system.held_out_losses(batch)
    expected = [[bool(batch.valid[clip, at]) for at in places] for clip, places in enumerate(predicted)]
    assert sound.tolist() == expected
    assert 0 < sum(map(sum, expected)) < losses.numel()
    sums = system.validation_step(batch, 0)
    for suffix, wanted in (("_sound", True), ("_padding", False)):
        for clip in range(6):
            own = [
                float(loss) for loss, is_sound in zip(losses[clip], expected[clip], strict=True) if is_sound == wanted
            ]
            assert sums[f"{system.held_out_name}{suffix}"][:, clip].tolist() == pytest.approx([sum(own), len(own)])


@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
@pytest.mark.parametrize("content", ["sound", "padding", "both"])
def test_held_out_losses_are_logged_but_for_parts_without_tokens(content: str) -> None:
    system, batch = tiny_system("A"), tiny_batch()
    if content != "both":
        batch = replace(batch, valid=torch.full_like(batch.valid, content == "sound"))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (logged,) = trainer.validate(system, DataLoader([batch], batch_size=None), verbose=False)  # type: ignore[arg-type]  # batches of its own
    losses, sound = system.eval().held_out_losses(batch)
    name = f"val/{system.held_out_name}"
    expected = {name: losses.mean()}
    expected |= {f"{name}_sound": losses[sound].mean()} if sound.any() else {}
    expected |= {f"{name}_padding": losses[~sound].mean()} if (~sound).any() else {}
    assert logged == pytest.approx({key: float(value) for key, value in expected.items()}, rel=1e-5)
    assert len(logged) == (3 if content == "both" else 2)


@pytest.mark.parametrize("row", ["A", "G", "K"])
def test_decoding_that_the_head_cannot_do_is_refused(row: str) -> None:
    system = tiny_system(row)
    system.check_decoding(system.decoding)
    with pytest.raises(ValueError, match="'euler' is not a solver of this head"):
        system.check_decoding(replace(system.decoding, sampling={"solver": "euler"}))


def test_all_causal_rows_are_measured_on_the_same_noise() -> None:
    draws = []
    for row in CAUSAL:
        system = tiny_system(row).eval()
        system.head.held_out_loss = lambda z, x, level, noise: draws.append((level, noise, x)) or x.sum(dim=1)  # type: ignore[method-assign, func-returns-value]
        system.held_out_losses(tiny_batch())
    for level, noise, x in draws[1:]:
        assert torch.equal(level, draws[0][0])
        assert torch.equal(noise, draws[0][1])
        assert torch.equal(x, draws[0][2])
    strata = (draws[0][0].view(4, N) * N).floor().sort(dim=1).values
    assert torch.equal(strata, torch.arange(N).expand(4, -1).float())  # one level in each stratum


# MAR's rule (its `add_weight_decay`): no decay where a tensor has one dimension, is a bias, or is the head's. Its free
# vectors have leading axes of size one, [1, 1, C], so they are decayed; ours go without these axes.
FREE_VECTORS = {"backbone.bos", "backbone.mask_token", "prompt.padding"}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("row", ROWS)
def test_parameter_groups_are_mars_and_cover_every_parameter_once(row: str, head: str) -> None:
    system = tiny_system(row, head=head)
    settings = system.configure_optimizers()
    assert type(settings["optimizer"]) is torch.optim.AdamW
    groups = settings["optimizer"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.02, 0.0]
    assert all(group["betas"] == (0.9, 0.95) for group in groups)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in system.parameters())
    undecayed = {id(p) for p in groups[1]["params"]}
    for name, parameter in system.named_parameters():
        one_dimensional = parameter.ndim == 1 and name not in FREE_VECTORS
        assert (id(parameter) in undecayed) == (one_dimensional or name.endswith(".bias") or name.startswith("head."))
    decayed = {name for name, parameter in system.named_parameters() if id(parameter) not in undecayed}
    assert {"prompt.fake_prompt", "backbone.position_embed", "backbone.encoder_blocks.0.attn.qkv.weight"} <= decayed
    own = {
        "K": {"backbone.mask_token", "backbone.decoder_position_embed", "backbone.output_position_embed"},
        "G": {"backbone.bos", "target_position_embed"},
    }
    assert own.get(row, {"backbone.bos"}) <= decayed


def test_frozen_parameters_are_in_no_group() -> None:
    system = tiny_system("G")
    system.backbone.position_embed.requires_grad_(False)
    groups = parameter_groups(system, 0.02)
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for p in system.parameters()} - {id(system.backbone.position_embed)}


def test_warm_up_is_linear_and_then_constant() -> None:
    rates = [Optimisation(num_warmup_steps=4).rate(step) for step in range(8)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0])


def test_the_optimiser_follows_the_warm_up_to_the_stated_rate() -> None:
    system = tiny_system("G", optimisation=Optimisation(learning_rate=0.01, num_warmup_steps=3))
    settings = system.configure_optimizers()
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    assert settings["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(6):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates == [pytest.approx([rate, rate]) for rate in (0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01)]


def test_weights_are_a_function_of_the_seed_and_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = tiny_system("G"), tiny_system("G"), tiny_system("G", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.backbone.token_proj.weight, other.backbone.token_proj.weight)


def made_with(fingerprint: str = "a" * 12, num_tokens: int = N, token_dim: int = D) -> dict[str, Any]:
    tokenizer = {"class": "MelTokenizer", "settings": {"token_dim": token_dim}, "fingerprint": fingerprint}
    return {"tokenizer": tokenizer, "text": {}, "num_tokens": num_tokens, "token_dim": token_dim}


def test_another_tokenizer_is_refused_with_both_shown() -> None:
    system: AudioSystem = tiny_system()
    checkpoint: dict[str, Any] = {}
    system.attach_preprocessing(made_with())
    system.on_save_checkpoint(checkpoint)
    other = tiny_system()
    other.attach_preprocessing(made_with("b" * 12))
    with pytest.raises(ValueError, match=r"b{12}.*a{12}"):
        other.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=f"data has {N + 4} tokens of {D} values.*expects {N} of {D}"):
        tiny_system().attach_preprocessing(made_with(num_tokens=N + 4))


def test_hiding_without_a_law_is_refused() -> None:
    with pytest.raises(ValueError, match="masking_mode: zero requires a mask ratio"):
        tiny_system("A", masking_mode="zero")
    with pytest.raises(ValueError, match=r"prompt_drop must lie in \[0, 1\), got 1.5"):
        tiny_system("A", prompt_drop=1.5)

"""One contract for every head, whatever its distribution: it learns one, samples it, and draws nothing on its own."""

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from mntp.heads import HEADS, DiffusionHead, FlowMatchingHead, FlowSampling, Head, HeadSampling, MixtureHead
from mntp.heads.mixture import Mixture, MixtureSampling
from tests.mntp.heads.settings import sampling_for, solvers
from tests.mntp.heads.stand_in_network import Played

D, C = 2, 4
STEPS = 600
X0_LIMIT = 4.0  # trained for seconds, the diffusion head needs it; the toy distribution lies within
# A toy distribution that the context chooses: z[:, 0] > 0 moves two Gaussians, of weights 0.3 and 0.7, by SHIFT.
WEIGHT, SPREAD, SHIFT = 0.7, 0.3, 1.0
CENTRES = torch.tensor([[-1.2, 0.4], [1.2, -0.4]])
BUILD = {
    "DiffusionHead": lambda: DiffusionHead(D, C, width=64, depth=2),
    "FlowMatchingHead": lambda: FlowMatchingHead(D, C, width=64, depth=2),
    "MixtureHead": lambda: MixtureHead(D, C, width=64, depth=2, num_components=4),
}
SOLVERS = [(name, solver) for name in BUILD for solver in solvers(HEADS[name])]


def toy(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Contexts [count, C] and tokens [count, D] of the toy distribution."""
    z = torch.zeros(count, C)
    z[:, 0] = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1.0
    component = (torch.rand(count, generator=generator) < WEIGHT).long()
    x = CENTRES[component] + SPREAD * torch.randn(count, D, generator=generator)
    return z, x + SHIFT * z[:, :1] * torch.tensor([0.0, 1.0])


@pytest.fixture(scope="module")
def trained() -> dict[str, Head]:
    """Each head after a few seconds on the toy distribution."""
    heads = {}
    for name, build in BUILD.items():
        torch.manual_seed(0)
        head, generator = build(), torch.Generator().manual_seed(1)
        optimizer = torch.optim.AdamW(head.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            loss = head.loss(*toy(512, generator), generator).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        heads[name] = head.eval()
    return heads


def noise_for(head: Head, sampling: HeadSampling, count: int) -> Tensor:
    return torch.randn(count, head.num_draws(sampling), D, generator=torch.Generator().manual_seed(2))


def test_every_head_is_under_the_contract() -> None:
    assert set(BUILD) == set(HEADS)


@pytest.mark.parametrize(("name", "solver"), SOLVERS)
def test_a_toy_distribution_is_learnt_and_recovered(trained: dict[str, Head], name: str, solver: str) -> None:
    head, sampling, count = (
        trained[name],
        sampling_for(HEADS[name], num_steps=100, solver=solver, x0_limit=X0_LIMIT),
        4000,
    )
    for side in (-1.0, 1.0):
        z = torch.zeros(count, C)
        z[:, 0] = side
        x = head.sample(z, noise_for(head, sampling, count), sampling)
        right = x[:, 0] > 0
        assert float(right.float().mean()) == pytest.approx(WEIGHT, abs=0.08)
        for component in (0, 1):
            part = x[right == bool(component)]
            centre = CENTRES[component] + torch.tensor([0.0, side * SHIFT])
            assert (part.mean(dim=0) - centre).abs().max() < 0.12
            assert part.std(dim=0).tolist() == pytest.approx([SPREAD, SPREAD], abs=0.12)


@pytest.mark.parametrize("name", BUILD)
def test_training_has_lowered_the_held_out_loss(trained: dict[str, Head], name: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    z, x = toy(2000, generator)
    level, noise = torch.arange(2000) / 2000, torch.randn(2000, D, generator=generator)
    before, after = (head.held_out_loss(z, x, level, noise).mean().item() for head in (BUILD[name](), trained[name]))
    assert after < 0.8 * before


@pytest.mark.parametrize("name", BUILD)
def test_a_head_gives_a_loss_for_each_pair_and_draws_from_its_generator_alone(name: str) -> None:
    torch.manual_seed(0)
    head = BUILD[name]()
    z, x = torch.randn(6, C), torch.randn(6, D)
    state = torch.random.get_rng_state()
    losses = [head.loss(z, x, torch.Generator().manual_seed(5)) for _ in range(2)]
    level, noise = torch.rand(6, generator=torch.Generator().manual_seed(6)), torch.zeros(6, D)
    held_out = head.held_out_loss(z, x, level, noise)
    sampling = sampling_for(head, num_steps=10)
    head.sample(z, noise_for(head, sampling, 6), sampling)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert losses[0].shape == held_out.shape == (6,) and losses[0].dtype == held_out.dtype == torch.float32
    assert torch.equal(*losses)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(head.held_out_loss(z[order], x[order], level[order], noise[order]), held_out[order])


@pytest.mark.parametrize(("name", "solver"), [(name, solver) for name, solver in SOLVERS if solver])
def test_guidance_of_scale_one_is_the_conditional_path(trained: dict[str, Head], name: str, solver: str) -> None:
    head = trained[name]
    sampling = sampling_for(head, num_steps=20, solver=solver, x0_limit=X0_LIMIT)
    z, noise = torch.ones(8, C), noise_for(head, sampling, 8)
    plain = head.sample(z, noise, sampling)
    assert torch.equal(head.sample(z, noise, sampling, z_uncond=-z, guidance_scale=1.0), plain)
    assert not torch.allclose(head.sample(z, noise, sampling, z_uncond=-z, guidance_scale=3.0), plain)


@pytest.mark.parametrize(("name", "solver"), SOLVERS)
def test_a_lower_temperature_narrows(trained: dict[str, Head], name: str, solver: str) -> None:
    head = trained[name]
    spreads = []
    for temperature in (0.5, 1.0):
        sampling = sampling_for(head, num_steps=50, solver=solver, temperature=temperature, x0_limit=X0_LIMIT)
        z = torch.zeros(2000, C)
        z[:, 0] = 1.0
        x = head.sample(z, noise_for(head, sampling, 2000), sampling)
        spreads.append(float(x[x[:, 0] > 0][:, 1].std()))
    assert spreads[0] < spreads[1]


def flow_error(solver: str, steps: int, spread: float = 0.5) -> float:
    """Distance from the exact solution for tokens of N(0, spread^2), which is spread times the noise."""
    head = FlowMatchingHead(D, C, width=8, depth=1)

    def velocity(x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        t = t[:, None] / 1000
        return (t * spread**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * spread**2) * x

    head.net = Played(velocity)  # type: ignore[assignment]
    x = head.sample(
        torch.zeros(1, C), torch.ones(1, 1, D).double(), FlowSampling(num_steps=steps, solver=solver, temperature=0.8)
    )
    return abs(float(x[0, 0]) - 0.8 * spread)


def test_euler_is_of_first_order_and_heun_of_second() -> None:
    euler, heun = ([flow_error(solver, steps) for steps in (20, 40)] for solver in ("euler", "heun"))
    assert euler[0] / euler[1] == pytest.approx(2, rel=0.1)
    assert heun[0] / heun[1] == pytest.approx(4, rel=0.15)
    assert heun[1] < euler[1] / 10


def test_a_mixture_is_sampled_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, means and scales of known components, each within 4 standard errors; the temperature scales scales."""
    head, count, tau = MixtureHead(D, C, width=8, depth=1, num_components=3), 30_000, 0.7
    weights = torch.tensor([0.2, 0.5, 0.3])
    means = torch.tensor([[-20.0, 0.0], [0.0, 1.0], [20.0, 2.0]])
    scales = torch.tensor([[1.0, 0.5], [0.3, 2.0], [1.5, 1.0]])
    known = Mixture(weights.log().expand(count, 3), means.expand(count, 3, D), scales.expand(count, 3, D))
    monkeypatch.setattr(head, "mixture", lambda z: known)
    sampling = MixtureSampling(temperature=tau)
    x = head.sample(torch.zeros(count, C), noise_for(head, sampling, count), sampling)
    which = (x[:, 0] > -10).long() + (x[:, 0] > 10).long()
    for k in range(3):
        part = x[which == k]
        weight = float(weights[k])
        assert len(part) / count == pytest.approx(weight, abs=4 * math.sqrt(weight * (1 - weight) / count))
        assert ((part.mean(dim=0) - means[k]).abs() < 4 * tau * scales[k] / math.sqrt(len(part))).all()
        assert ((part.std(dim=0) - tau * scales[k]).abs() < 4 * tau * scales[k] / math.sqrt(2 * len(part))).all()


@pytest.mark.parametrize("name", BUILD)
def test_losses_follow_their_pairs_and_pairs_do_not_meet(name: str) -> None:
    """By gradient: the loss of a pair depends on no other pair, so the mean over a batch on none of its order."""
    torch.manual_seed(0)
    head = BUILD[name]().double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z, x = torch.randn(4, C).double().requires_grad_(), torch.randn(4, D).double().requires_grad_()
    losses = head.loss(z, x, torch.Generator().manual_seed(5))
    for row in range(4):
        for gradient in torch.autograd.grad(losses[row], (z, x), retain_graph=True):
            assert (gradient.abs().sum(dim=1) > 0).tolist() == [other == row for other in range(4)]


@torch.no_grad()
def test_an_untrained_flow_has_the_loss_that_theory_says() -> None:
    """Zero velocity: E (x - noise)^2 = 2 for tokens of unit variance, within 4 standard errors of 40,000 pairs."""
    head, generator = FlowMatchingHead(D, C, width=8, depth=1, num_noise_draws=1), torch.Generator().manual_seed(0)
    losses = head.loss(torch.zeros(40_000, C), torch.randn(40_000, D, generator=generator), generator)
    assert float(losses.mean()) == pytest.approx(2.0, abs=4 * math.sqrt(8 / (40_000 * D)))
    x = 3 * torch.ones(40_000, D)
    assert float(head.loss(torch.zeros(40_000, C), x, generator).mean()) == pytest.approx(10, abs=0.2)


@torch.no_grad()
def test_an_untrained_mixture_has_the_loss_that_theory_says() -> None:
    """Equal components of scale 1 close to the middle: the entropy of a normal, and the spread of the centres."""
    torch.manual_seed(0)
    head, x = MixtureHead(D, C, width=8, depth=1), torch.randn(40_000, D)
    losses = head.loss(torch.randn(40_000, C), x, torch.Generator())
    assert float(losses.mean()) == pytest.approx(0.5 * math.log(2 * math.pi) + 0.5, abs=4 * 0.5 / 200 + 0.1**2)


def test_a_flow_is_trained_on_the_straight_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input (1 - t) noise + t x at a uniform t, target x - noise, with a network of known outputs."""
    head, seen = FlowMatchingHead(D, C, width=8, depth=1, num_noise_draws=1), []

    def net(x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        seen.extend([x, t])
        return 0.5 * x

    monkeypatch.setattr(head.net, "forward", net)
    x = torch.randn(4000, D, generator=torch.Generator().manual_seed(0))
    losses = head.loss(torch.zeros(4000, C), x, torch.Generator().manual_seed(1))
    noisy, t = seen[0], seen[1][:, None] / 1000
    noise = (noisy - t * x) / (1 - t)
    sure = t[:, 0] < 0.9  # beyond it the division magnifies rounding
    assert stats.kstest(t[:, 0].numpy(), stats.uniform.cdf).pvalue > 1e-4  # a right law fails once in 10,000 seeds
    assert stats.kstest(noise[sure].flatten().numpy(), stats.norm.cdf).pvalue > 1e-4
    expected = (x - noise - 0.5 * noisy).square().mean(dim=1)
    torch.testing.assert_close(losses[sure], expected[sure], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("DiffusionHead", {"solver": "ddimm"}, r"decoding\.sampling\.solver: 'ddimm' .* known: ancestral, .*'ddim'\?"),
        ("FlowMatchingHead", {"solver": "ddim"}, r"decoding\.sampling\.solver: 'ddim' .* known: euler, heun"),
        ("MixtureHead", {"num_steps": 4}, r"decoding\.sampling: 'num_steps' is not a setting of MixtureHead; known: "),
        ("MixtureHead", {"x0_limitt": 4}, r"did you mean 'x0_limit'\?"),
        ("MixtureHead", {"x0_limit": 0}, r"decoding\.sampling\.x0_limit: expected a number above 0, or null, got 0"),
        ("FlowMatchingHead", {"num_steps": 0}, r"decoding\.sampling\.num_steps: .* from 1 up, got 0"),
        ("FlowMatchingHead", {"num_steps": "ten"}, r"decoding\.sampling\.num_steps: .* from 1 up, got 'ten'"),
        ("DiffusionHead", {"num_steps": 1}, r"decoding\.sampling\.num_steps: expected 2 to 1000, got 1"),
        ("DiffusionHead", {"temperature": -1}, r"decoding\.sampling\.temperature: expected a number from 0 up, got -1"),
        ("DiffusionHead", {"guided_steps": [0.5]}, r"decoding\.sampling\.guided_steps: expected \[begin, end\]"),
    ],
)
def test_settings_that_a_head_does_not_have_are_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BUILD[name]().settings(values)


def test_settings_of_another_head_are_refused() -> None:
    with pytest.raises(ValueError, match="got FlowSampling, but DiffusionHead takes DiffusionSampling"):
        BUILD["DiffusionHead"]().settings(FlowSampling())
    assert BUILD["FlowMatchingHead"]().settings({"num_steps": 7}) == FlowSampling(num_steps=7, solver="euler")


def test_the_mixtures_loss_is_the_density_written_out() -> None:
    torch.manual_seed(0)
    head = MixtureHead(D, C, width=8, depth=1, num_components=3).double()
    torch.nn.init.normal_(head.output_proj.weight, std=0.3)
    z, x = torch.randn(5, C).double(), torch.randn(5, D).double()
    with torch.no_grad():
        log_weights, means, scales = head.mixture(z)
        losses = head.loss(z, x, torch.Generator())
    for row in range(5):
        density = 0.0
        for k in range(3):
            term = float(log_weights[row, k].exp())
            for d in range(D):
                mean, scale = float(means[row, k, d]), float(scales[row, k, d])
                term *= math.exp(-(((float(x[row, d]) - mean) / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))
            density += term
        assert float(losses[row]) == pytest.approx(-math.log(density) / D, rel=1e-10)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_flows_limit_bounds_its_estimate_of_the_token(solver: str) -> None:
    """Two steps with a network of known velocities, written out: the estimate of the token is x + (1 - t) v."""
    velocities = {0.0: 3.0, 500.0: -4.0}  # by time, as the network is told it

    def network(x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        return torch.full_like(x, velocities[float(t[0])])

    head = FlowMatchingHead(1, 1, width=8, depth=1)
    head.net = Played(network)  # type: ignore[assignment]  # plays the network
    noise = torch.tensor([[[0.5]], [[-2.5]], [[-0.2]]], dtype=torch.float64)

    def drawn(limit: float | None) -> list[float]:
        x = head.sample(torch.zeros(3, 1), noise, FlowSampling(num_steps=2, solver=solver, x0_limit=limit))
        return [float(value) for value in x[:, 0]]

    def clipped(x: float, t: float, limit: float) -> float:
        estimate = x + (1 - t) * velocities[1000 * t]
        return (max(-limit, min(limit, estimate)) - x) / (1 - t)

    expected = []
    for x in (0.5, -2.5, -0.2):
        first = clipped(x, 0.0, 1.5)
        if solver == "heun":
            first = (first + clipped(x + first / 2, 0.5, 1.5)) / 2
        x = x + first / 2
        expected.append(x + clipped(x, 0.5, 1.5) / 2)
    assert drawn(1.5) == pytest.approx(expected, abs=1e-12)
    assert max(abs(value) for value in drawn(1.5)) <= 1.5 + 1e-12
    assert drawn(100.0) == pytest.approx(drawn(None), abs=1e-12)
    assert drawn(1.5) != pytest.approx(drawn(None), abs=0.1)

"""Modulations known in advance give the network's own numbers, in fewer operations."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mntp.heads import DiffusionHead, DiffusionSampling, FlowMatchingHead, denoiser
from mntp.heads.denoiser import Denoise, Denoiser, MLPDenoiser
from tests.mntp.heads.settings import sampling_for, solvers

D, C, W, M, S = 3, 5, 16, 4, 7
TIMES = [float(142 * k) for k in range(S)]


def network(dtype: torch.dtype = torch.float64) -> MLPDenoiser:
    torch.manual_seed(0)
    net = MLPDenoiser(D, C, W, depth=2, out_dim=2 * D).to(dtype)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


@torch.no_grad()
@pytest.mark.parametrize("limit", [1, 3 * M * 8 * W, 2**26])  # modulations of one step, of three, of all at a time
def test_known_times_give_what_the_network_gives(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(denoiser, "MAX_MODULATIONS", limit)
    net, z = network(), torch.randn(M, C, dtype=torch.float64)
    fast, plain = net.at_times(TIMES, z), Denoiser.at_times(net, TIMES, z)
    for k in [*reversed(range(S)), 2, 5]:  # in any order
        x = torch.randn(M, D, dtype=torch.float64)
        expected = net(x, torch.full((M,), TIMES[k], dtype=torch.float64), z)
        torch.testing.assert_close(fast(x, k, M), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(plain(x, k, M), expected, rtol=0, atol=0)
        shared = x[: M // 2]  # two branches of the guidance, or the first alone
        torch.testing.assert_close(fast(shared, k, M), plain(shared, k, M), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(fast(shared, k, M // 2), plain(shared, k, M // 2), rtol=1e-12, atol=1e-12)


class Plain(MLPDenoiser):
    """Shares nothing between steps."""

    def at_times(self, times: list[float], z: Tensor) -> Denoise:  # type: ignore[override]
        return Denoiser.at_times(self, times, z)


@torch.no_grad()
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(
    ("cls", "solver"), [(cls, s) for cls in (DiffusionHead, FlowMatchingHead) for s in solvers(cls)]
)
def test_fast_equals_plain_in_float32(cls: type[DiffusionHead | FlowMatchingHead], solver: str, guided: bool) -> None:
    torch.manual_seed(0)
    head = cls(D, C, width=W, depth=2)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    sampling = sampling_for(cls, num_steps=50, solver=solver, x0_limit=4.0)
    z, z_uncond, noise = torch.randn(M, C), torch.randn(M, C), torch.randn(M, head.num_draws(sampling), D)
    guidance = {"z_uncond": z_uncond, "guidance_scale": 3.0} if guided else {}
    fast = head.sample(z, noise, sampling, **guidance)  # type: ignore[arg-type]
    head.net.__class__ = Plain
    plain = head.sample(z, noise, sampling, **guidance)  # type: ignore[arg-type]
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    assert fast.dtype == torch.float32


@torch.no_grad()
def test_the_scale_of_guidance_may_be_a_tensor() -> None:
    head, sampling = DiffusionHead(D, C, width=W, depth=2), DiffusionSampling(num_steps=10)
    head.net = network(torch.float32)
    z, z_uncond, noise = torch.randn(M, C), torch.randn(M, C), torch.randn(M, 10, D)
    for scale in (1.0, 3.0):
        number = head.sample(z, noise, sampling, z_uncond=z_uncond, guidance_scale=scale)
        tensor = head.sample(z, noise, sampling, z_uncond=z_uncond, guidance_scale=torch.tensor(scale))
        torch.testing.assert_close(tensor, number, rtol=1e-5, atol=1e-5)


class Counting(Denoiser):
    """Notes how many contexts each step asks."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[float, int]] = []

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        self.rows.append((float(t[0]), len(x)))
        return torch.cat([0.1 * x + 0.1 * z[:, :D], torch.zeros_like(x)], dim=-1)


@pytest.mark.parametrize(
    ("part", "guided"), [((0.0, 1.0), range(10)), ((0.2, 0.7), range(2, 7)), ((0.0, 0.5), range(5))]
)
@pytest.mark.parametrize("cls", [DiffusionHead, FlowMatchingHead])
def test_only_the_steps_asked_for_are_guided(
    cls: type[DiffusionHead | FlowMatchingHead], part: tuple[float, float], guided: range
) -> None:
    """Counted from the noise, whichever way the head's time runs; the rest run the conditional branch alone."""
    head, net = cls(D, C, width=8, depth=1), Counting()
    head.net = net  # type: ignore[assignment]  # plays the network
    if cls is FlowMatchingHead:
        net.forward = lambda x, t, z: (net.rows.append((float(t[0]), len(x))), 0.1 * x)[1]  # type: ignore[method-assign]
    sampling = sampling_for(cls, num_steps=10, guided_steps=part)
    z, noise = torch.randn(M, C), torch.randn(M, head.num_draws(sampling), D)
    head.sample(z, noise, sampling, z_uncond=-z, guidance_scale=3.0)
    times = [time for time, _ in net.rows]
    assert times == sorted(times, reverse=cls is DiffusionHead) and len(times) == 10
    assert [rows for _, rows in net.rows] == [2 * M if step in guided else M for step in range(10)]


@pytest.mark.parametrize("part", [(-0.1, 1.0), (0.6, 0.4), (0.0, 1.1)])
def test_a_part_that_is_none_is_refused(part: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^decoding\.sampling\.guided_steps: expected \[begin, end\] within 0 to 1"):
        DiffusionSampling(num_steps=10, guided_steps=part)


@torch.no_grad()
def test_the_chain_is_left_with_two_products_a_block() -> None:
    """Counted operations of the Base head with guidance, 100 steps, batch 1."""
    token_dim, dim, width, steps = 128, 768, 1024, 100
    head = DiffusionHead(token_dim, dim, width=width, depth=3)
    z, noise = torch.randn(1, dim), torch.randn(1, steps, token_dim)
    counted = FlopCounterMode(display=False)
    with counted:
        head.sample(z, noise, DiffusionSampling(num_steps=steps), z_uncond=z, guidance_scale=2.0)
    rows = 2
    chain = token_dim * width + rows * (6 * width**2 + width * 2 * token_dim)  # a step
    once = rows * dim * width + steps * (256 + width) * width + rows * steps * width * (3 * 3 + 2) * width
    assert counted.get_total_flops() == 2 * (steps * chain + once)
    per_step = rows * (256 + width + dim + token_dim) * width  # what is done anew at every step without it
    plain = FlopCounterMode(display=False)
    head.net.__class__ = Plain
    with plain:
        head.sample(z, noise, DiffusionSampling(num_steps=steps), z_uncond=z, guidance_scale=2.0)
    products = rows * (6 + 11) * width**2 + rows * width * 2 * token_dim
    assert plain.get_total_flops() == 2 * steps * (per_step + products)
    assert math.isclose(counted.get_total_flops() / plain.get_total_flops(), 0.9, abs_tol=0.06)

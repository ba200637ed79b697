"""Scales at each position against the paper's and MAR's formulas; no guidance is exactly no guidance."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mntp.conditioning.guidance import Guidance
from mntp.heads import DiffusionHead, DiffusionSampling
from mntp.heads.denoiser import Denoiser, guided_denoiser
from tests.mntp.heads.stand_in_network import Played

N = 64


def test_annealed_is_equation_5() -> None:
    guidance = Guidance(7.0)
    for i in range(1, N + 1):  # the paper counts from 1
        assert guidance.at(i - 1, N - i, N) == pytest.approx(1 + (7 - 1) * (1 - (i - 1) / (N - 1)))
    assert guidance.at(0, N - 1, N) == 7
    assert guidance.at(N - 1, 0, N) == 1


def test_linear_is_mar() -> None:
    guidance = Guidance(4.0, schedule="linear")
    for hidden in range(N):
        assert guidance.at(0, hidden, N) == pytest.approx(1 + 3 * (N - max(1, hidden)) / N)


def test_the_conventions_differ_by_one_unit() -> None:
    for schedule in ("annealed", "constant", "linear"):
        mar, paper = Guidance(5.0, schedule), Guidance(5.0, schedule, convention="paper")
        assert paper.at(10, 50, N) == mar.at(10, 50, N) + 1


@pytest.mark.parametrize(
    ("guidance", "off"),
    [
        (Guidance(1.0), True),
        (Guidance(1.0, "linear"), True),
        (Guidance(2.0), False),
        (Guidance(0.0, "constant", "paper"), True),
        (Guidance(1.0, "constant", "paper"), False),
        (Guidance(0.0, "annealed", "paper"), False),  # Equation 5 as printed ends at 1, one unit of guidance
    ],
)
def test_off(guidance: Guidance, off: bool) -> None:
    assert guidance.is_off is off
    if off:
        assert {guidance.at(k, N - 1 - k, N) for k in range(N)} == {1.0}


@pytest.mark.parametrize(("convention", "scale"), [("mar", 3.0), ("paper", 3.0), ("mar", 0.5), ("paper", -1.0)])
def test_equation_4_as_each_convention_writes_it(convention: Any, scale: float) -> None:
    """The outputs of a known network, mixed by the formula written out."""

    class Known(Denoiser):
        def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
            return x.sin() + t[:, None] + z

    torch.manual_seed(0)
    x, z, other = (torch.randn(5, 3, dtype=torch.float64) for _ in range(3))
    w = Guidance(scale, "constant", convention).at(3, N - 4, N)
    guided, plain = guided_denoiser(Known(), [9.0, 0.5], z, other, w)(x, 1)
    eps_c, eps_u = x.sin() + 0.5 + z, x.sin() + 0.5 + other
    expected = (eps_u if convention == "mar" else eps_c) + scale * (eps_c - eps_u)
    torch.testing.assert_close(guided, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(plain, eps_c, rtol=0, atol=0)


def test_under_guidance_the_variance_is_the_conditional_branchs() -> None:
    """With equal noise predictions guidance does nothing, however far apart the variance outputs are."""

    head, sampling = DiffusionHead(3, 4, width=8, depth=1), DiffusionSampling(num_steps=10)
    head.net = Played(lambda x, t, z: torch.cat([0.1 * x, z[:, :3]], dim=-1))  # type: ignore[assignment]
    z, noise = torch.rand(5, 4), torch.randn(5, 10, 3, generator=torch.Generator().manual_seed(0))
    plain = head.sample(z, noise, sampling)
    torch.testing.assert_close(head.sample(z, noise, sampling, z_uncond=-z, guidance_scale=5.0), plain)
    assert not torch.allclose(head.sample(-z, noise, sampling), plain)


def test_scale_one_equals_the_conditional_path_exactly() -> None:
    torch.manual_seed(0)
    head = DiffusionHead(3, 4, width=8, depth=1)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    sampling = DiffusionSampling(num_steps=10)
    z, other, noise = torch.randn(5, 4), torch.randn(5, 4), torch.randn(5, head.num_draws(sampling), 3)
    plain = head.sample(z, noise, sampling)
    assert torch.equal(head.sample(z, noise, sampling, z_uncond=other, guidance_scale=1.0), plain)
    assert not torch.allclose(head.sample(z, noise, sampling, z_uncond=other, guidance_scale=2.0), plain)

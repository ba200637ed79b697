"""Scales at each position against the paper's and MAR's formulas; no guidance is exactly no guidance."""

import pytest
import torch

from mntp.guidance import Guidance
from mntp.heads import DiffusionHead, HeadSampling

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


def test_scale_one_equals_the_conditional_path_exactly() -> None:
    torch.manual_seed(0)
    head = DiffusionHead(3, 4, width=8, depth=1)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    sampling = HeadSampling(10)
    z, other, noise = torch.randn(5, 4), torch.randn(5, 4), torch.randn(5, head.num_draws(sampling), 3)
    plain = head.sample(z, noise, sampling)
    assert torch.equal(head.sample(z, noise, sampling, z_uncond=other, guidance_scale=1.0), plain)
    assert not torch.allclose(head.sample(z, noise, sampling, z_uncond=other, guidance_scale=2.0), plain)

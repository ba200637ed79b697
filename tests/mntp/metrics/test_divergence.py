import math

import pytest
import torch

from mntp.metrics.divergence import kl_divergence


def rows(num_rows: int, seed: int) -> torch.Tensor:
    logits = torch.randn(num_rows, 7, generator=torch.Generator().manual_seed(seed))
    return logits.log_softmax(-1)


def test_matches_torch_distributions():
    ref, gen = rows(20, 0), rows(20, 1)
    categorical = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(categorical(logits=ref), categorical(logits=gen)).mean()
    assert kl_divergence(ref, gen) == pytest.approx(expected.item(), rel=1e-5)


def test_a_known_value_and_its_direction():
    ref, gen = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert kl_divergence(ref, gen) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert kl_divergence(gen, ref) == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))


def test_identical_rows_give_exactly_zero():
    ref = rows(20, 0)
    assert kl_divergence(ref, ref.clone()) == 0.0


def test_pairs_matter():
    ref = rows(20, 0)
    assert kl_divergence(ref, ref.roll(1, 0)) > 0.1


def test_excluded_classes():
    sure, even = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert kl_divergence(sure, sure) == 0.0
    assert kl_divergence(sure, even) == pytest.approx(math.log(2))
    assert kl_divergence(even, sure) == math.inf


def test_a_constant_inside_the_logarithm_keeps_its_bias():
    """The published toolkit adds 1e-6 to the generated probabilities only: identical sets fall below 0."""
    ref = rows(20, 0).double()
    assert kl_divergence(ref, (ref.exp() + 1e-6).log()) == pytest.approx(-7e-6, rel=1e-3)


@pytest.mark.parametrize(
    ("ref", "gen", "message"),
    [
        (rows(3, 0), rows(4, 0), r"\[3, 7\] and \[4, 7\]"),
        (rows(0, 0), rows(0, 0), "n, K >= 1"),
        (rows(3, 0), rows(3, 0) * math.nan, "NaN"),
    ],
)
def test_bad_input(ref, gen, message):
    with pytest.raises(ValueError, match=message):
        kl_divergence(ref, gen)

"""The effective number of clips where it can be counted."""

import math

import pytest
import torch

from mntp.metrics.vendi import vendi_score


def test_orthogonal_clips_are_counted() -> None:
    assert vendi_score(torch.eye(7)) == pytest.approx(7.0)
    assert vendi_score(torch.ones(7, 3)) == pytest.approx(1.0)
    assert vendi_score(torch.eye(3).repeat(5, 1)) == pytest.approx(3.0)  # copies count once
    assert vendi_score(3 * torch.eye(4)) == pytest.approx(4.0)  # lengths don't count


def test_unequal_shares_count_by_their_entropy() -> None:
    """Three copies of one clip and one of another: exp of the entropy of (3/4, 1/4)."""
    rows = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    assert vendi_score(rows) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_two_clips_at_an_angle() -> None:
    """K / 2 has the eigenvalues (1 +- cos) / 2."""
    cosine = math.cos(0.4)
    high, low = (1 + cosine) / 2, (1 - cosine) / 2
    rows = torch.tensor([[1.0, 0.0], [cosine, math.sin(0.4)]])
    assert vendi_score(rows) == pytest.approx(math.exp(-high * math.log(high) - low * math.log(low)), rel=1e-6)


def test_more_and_fewer_clips_than_features_agree_with_the_plain_formula() -> None:
    for shape in ((9, 4), (4, 9)):
        rows = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        similarity = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1)
        values = torch.linalg.eigvalsh(similarity / len(rows)).clamp(min=1e-300)
        assert vendi_score(rows) == pytest.approx((-(values * values.log()).sum()).exp().item())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="all zero"):
        vendi_score(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"got \[3\]"):
        vendi_score(torch.ones(3))

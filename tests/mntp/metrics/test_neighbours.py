"""Neighbourhoods: cases known by hand, and the papers' formulas written out clip by clip."""

import math

import pytest
import torch
from torch import Tensor

from mntp.metrics.neighbours import neighbourhoods


def plain(generated: Tensor, reference: Tensor, k: int) -> tuple[float, float, float, float]:
    def radius(rows: Tensor, row: int) -> float:
        return sorted(math.dist(rows[row], other) for place, other in enumerate(rows) if place != row)[k - 1]

    of_reference = [radius(reference, row) for row in range(len(reference))]
    of_generated = [radius(generated, row) for row in range(len(generated))]
    held = [[math.dist(r, g) < reach for g in generated] for r, reach in zip(reference, of_reference, strict=True)]
    recalled = [
        any(math.dist(r, g) < reach for g, reach in zip(generated, of_generated, strict=True)) for r in reference
    ]
    by_clip = list(zip(*held, strict=True))
    precision = sum(any(of_clip) for of_clip in by_clip) / len(generated)
    density = sum(map(sum, held)) / (k * len(generated))
    return precision, sum(recalled) / len(reference), density, sum(map(any, held)) / len(reference)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_papers_formulas(k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    reference, generated = (torch.randn(count, 3, generator=generator).double() for count in (25, 18))
    found = neighbourhoods(0.7 * generated + 0.8, reference, k)
    expected = plain(0.7 * generated + 0.8, reference, k)
    assert tuple(found) == pytest.approx(expected)
    assert len({round(value, 6) for value in expected}) > 2


def test_clips_of_one_kind_are_precise_and_do_not_cover() -> None:
    """Two clusters of references, generated clips in one of them alone: faithful, half of the variety."""
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(40, 2, generator=generator)
    reference[20:] += 100
    generated = reference[:20].repeat(2, 1) + 0.01 * torch.randn(40, 2, generator=generator)
    found = neighbourhoods(generated, reference)
    assert found.precision == 1.0 and found.coverage == 0.5 and found.density > 0.8
    assert found.recall < 0.6
    far = neighbourhoods(generated + 1000, reference)
    assert tuple(far) == (0.0, 0.0, 0.0, 0.0)


def test_identical_sets() -> None:
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(2))
    found = neighbourhoods(rows, rows.clone())
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)
    assert found.density == pytest.approx(1.0)  # a ball holds its centre and k - 1 others; the k-th lies on its rim


@pytest.mark.parametrize(
    ("generated", "reference", "message"),
    [
        (torch.ones(5, 2), torch.ones(9, 2), "at least 6 clips, got 5 and 9"),
        (torch.ones(9, 2), torch.ones(9, 3), r"got \[9, 2\], \[9, 3\]"),
        (torch.full((9, 2), math.inf), torch.ones(9, 2), "infinite"),
    ],
)
def test_bad_input(generated: Tensor, reference: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neighbourhoods(generated, reference)

"""Losses of every row, and of every system with every head, to nine digits those in tests/golden/losses.json."""

import json
import statistics

import pytest

from tests.mntp.systems.golden_losses import CASES, FILE, STEPS, losses

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("case", CASES)
def test_losses_are_the_golden_ones(case: str) -> None:
    values = losses(case)
    assert values == pytest.approx(GOLDEN[case], rel=1e-9)
    assert len(values) == STEPS
    # It learns; by the median, because the bound term of a pair drawn at t = 0 can be a hundred times the rest.
    assert statistics.median(values[-10:]) < statistics.median(values[:10])


def test_every_case_is_covered() -> None:
    assert set(GOLDEN) == set(CASES)

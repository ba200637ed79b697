"""Every system's losses, to nine digits, are those in tests/golden/losses.json."""

import json
import statistics

import pytest

from tests.mntp.golden_losses import FILE, STEPS, losses
from tests.systems_support import ROWS

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("row", ROWS)
def test_losses_are_the_golden_ones(row: str) -> None:
    values = losses(row)
    assert values == pytest.approx(GOLDEN[row], rel=1e-9)
    assert len(values) == STEPS
    # It learns; by the median, because the bound term of a pair drawn at t = 0 can be a hundred times the rest.
    assert statistics.median(values[-10:]) < statistics.median(values[:10])


def test_every_row_is_covered() -> None:
    assert set(GOLDEN) == set(ROWS)

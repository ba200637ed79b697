"""Every system's losses, to nine digits, are those in tests/golden/losses.json."""

import json

import pytest

from tests.mntp.golden_losses import FILE, STEPS, losses
from tests.systems_support import ROWS

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("row", ROWS)
def test_losses_are_the_golden_ones(row: str) -> None:
    values = losses(row)
    assert values == pytest.approx(GOLDEN[row], rel=1e-9)
    assert len(values) == STEPS
    assert sum(values[-5:]) < sum(values[:5])  # it learns


def test_every_row_is_covered() -> None:
    assert set(GOLDEN) == set(ROWS)

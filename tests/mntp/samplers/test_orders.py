import pytest
import torch

from mntp.samplers.orders import count_leading


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([[0, 1, 1, 1]], 0),
        ([[1, 1, 0, 1]], 2),  # what comes after a gap doesn't count
        ([[1, 1, 1, 0], [1, 0, 1, 1]], 1),  # the clip with the first gap decides
        ([[0, 1, 1, 1], [1, 1, 1, 0]], 0),
        ([[1, 1, 1, 1]] * 3, 4),
    ],
)
def test_positions_known_from_the_first_on_in_every_clip(known: list[list[int]], expected: int) -> None:
    assert count_leading(torch.tensor(known, dtype=torch.bool)) == expected

"""What changes a hash and what doesn't, and which of the two."""

from typing import Any

import pytest

from experiments.scoring.protocol import folder_protocol, protocol_hash, scoring_hash

BASE: dict[str, Any] = {
    "kind": "audioldm",
    "networks": {"cnn14": "a", "vggish": "b"},
    "names": ["x.wav", "y.wav"],
    "digests": ["1", "2"],
    "seconds": (2.0, 10.0),
    "captions": {"x.wav": "rain", "y.wav": "wind", "z.wav": "left out"},
    "caption_choice": "seed 0",
    "num_missing": 0,
    "generation": {"guidance": 7.0},
}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "embedded"},
        {"networks": {"cnn14": "a", "vggish": "c"}},
        {"digests": ["1", "3"]},
        {"digests": ["2", "1"]},
        {"names": ["x.wav", "z.wav"]},
        {"captions": {"x.wav": "rain", "y.wav": "storm"}},
        {"captions": None},
        {"caption_choice": "seed 1"},
        {"num_missing": 3},
        {"seconds": (2.0, 9.0)},
    ],
)
def test_another_yardstick_changes_both_hashes(change: dict[str, Any]) -> None:
    one, two = folder_protocol(**BASE), folder_protocol(**BASE | change)
    assert scoring_hash(one) != scoring_hash(two)
    assert protocol_hash(one) != protocol_hash(two)


@pytest.mark.parametrize("generation", [{"guidance": 5.0}, {}, None])
def test_another_generation_changes_the_protocol_alone(generation: Any) -> None:
    one, two = folder_protocol(**BASE), folder_protocol(**BASE | {"generation": generation})
    assert scoring_hash(one) == scoring_hash(two)
    assert protocol_hash(one) != protocol_hash(two)


def test_the_order_of_entries_and_captions_of_other_files_do_not_count() -> None:
    turned = {"y.wav": "wind", "x.wav": "rain"}
    other = folder_protocol(**BASE | {"captions": turned, "networks": {"vggish": "b", "cnn14": "a"}})
    assert protocol_hash(folder_protocol(**BASE)) == protocol_hash(other)

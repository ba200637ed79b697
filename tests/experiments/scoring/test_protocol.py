"""What changes a hash and what doesn't, and which of the two; which scores of two files may be compared."""

from typing import Any

import pytest

from experiments.scoring.protocol import Protocol, protocol_hash, score_facts, score_protocol, scoring_hash
from mntp.metrics.audioldm_scores import ToolkitScores
from mntp.metrics.score_sets import EmbeddedScores
from tests.experiments.scoring.toy_network import tiny_toolkit

BASE: dict[str, Any] = {
    "score_set": tiny_toolkit(with_clap=True),
    "scores": ["fd", "fad", "clap"],
    "reference": {"x": "1", "y": "2"},
    "generated": {"x": "3", "y": "4"},
    "captions": {"x": "rain", "y": "wind", "z": "left out"},
    "num_missing": 0,
    "num_extra": 0,
    "generation": {"guidance": 7.0},
}


def protocol(**change: Any) -> Protocol:
    return score_protocol(**BASE | change)


def other_network(name: str) -> ToolkitScores:
    score_set = tiny_toolkit(with_clap=True)
    next(score_set.networks[name].parameters()).data += 1
    return score_set


@pytest.mark.parametrize(
    "change",
    [
        {"score_set": other_network("vggish")},
        {"score_set": tiny_toolkit(), "scores": ["fd", "fad"]},
        {"reference": {"x": "1", "y": "3"}},
        {"reference": {"x": "2", "y": "1"}},
        {"reference": {"x": "1", "z": "2"}},
        {"captions": {"x": "rain", "y": "storm"}},
        {"captions": None, "scores": ["fd", "fad"]},
        {"num_missing": 3},
    ],
)
def test_another_measurement_changes_both_hashes(change: dict[str, Any]) -> None:
    assert scoring_hash(protocol()) != scoring_hash(protocol(**change))
    assert protocol_hash(protocol()) != protocol_hash(protocol(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"generation": {"guidance": 5.0}},
        {"generation": None},
        {"generated": {"x": "3", "y": "5"}},
        {"num_extra": 10},
    ],
)
def test_other_generated_audio_changes_the_protocol_alone(change: dict[str, Any]) -> None:
    assert scoring_hash(protocol()) == scoring_hash(protocol(**change))
    assert protocol_hash(protocol()) != protocol_hash(protocol(**change))


def test_the_order_of_entries_and_captions_of_other_files_do_not_count() -> None:
    turned = {"captions": {"y": "wind", "x": "rain"}, "generation": dict(reversed(BASE["generation"].items()))}
    assert protocol_hash(protocol()) == protocol_hash(protocol(**turned))


def test_another_definition_is_another_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    before = protocol()
    monkeypatch.setattr(ToolkitScores, "definition", lambda self: "other")
    assert scoring_hash(protocol()) != scoring_hash(before)
    assert all(score_facts(protocol(), score) != score_facts(before, score) for score in BASE["scores"])


@pytest.mark.parametrize(
    ("change", "comparable"),
    [
        ({"captions": None}, {"fd", "fad"}),
        ({"captions": {"x": "rain", "y": "storm"}}, {"fd", "fad"}),
        ({"score_set": other_network("vggish")}, {"fd", "clap"}),
        ({"score_set": other_network("cnn14")}, {"fad", "clap"}),
        ({"score_set": other_network("clap")}, {"fd", "fad"}),
        ({"reference": {"x": "1", "y": "3"}}, set()),
        ({"generated": {"x": "5", "y": "5"}, "generation": None, "num_extra": 2}, {"fd", "fad", "clap"}),
    ],
)
def test_a_score_rests_on_its_own_networks_and_captions_alone(change: dict[str, Any], comparable: set[str]) -> None:
    one, two = protocol(), protocol(**change)
    assert {score for score in BASE["scores"] if score_facts(one, score) == score_facts(two, score)} == comparable


def test_a_judges_scores_but_one_need_no_captions(judge) -> None:
    score_set = EmbeddedScores(judge)
    assert {s for s in score_set.scores if "captions" in score_set.inputs(s)} == {"text_judge"}
    assert all(score_set.inputs(s)[0] == "judge" for s in score_set.scores)

"""Public checkpoints are taken with their known hash, or others on purpose under other names."""

from pathlib import Path

import pytest

from experiments.scoring.score_sets import load_score_set
from mntp.metrics.networks.cnn14 import Cnn14
from mntp.metrics.networks.vggish import VGGish
from mntp.metrics.other_weights import OtherWeights
from mntp.pretrained.catalogue import KNOWN


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of the right names and other content, which load as tiny networks."""
    for name in ("cnn14_16k", "vggish"):
        (tmp_path / KNOWN[name].file).write_bytes(b"another copy")
    monkeypatch.setattr(Cnn14, "from_checkpoint", lambda path: Cnn14(width=1, num_classes=7).eval())
    monkeypatch.setattr(VGGish, "from_checkpoint", lambda path: VGGish(width=1, num_hidden=4).eval())
    return tmp_path


def test_files_of_another_hash_are_refused_with_the_way_out(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"Cnn14_16k.*altered.*or score with these files on purpose by --any_weights"):
        load_score_set("audioldm", weights, weights, text=False)


def test_files_of_another_hash_score_under_names_of_their_own(weights: Path) -> None:
    score_set = load_score_set("audioldm", weights, weights, text=False, any_weights=True)
    assert isinstance(score_set, OtherWeights) and score_set.kind == "any_weights"
    assert {"fd_any", "fad_any", "kl_any"} <= set(score_set.scores) and score_set.inputs("fad_any") == ("vggish",)
    assert set(score_set.networks) == {"cnn14", "vggish"}


def test_missing_files_are_missing_either_way(weights: Path) -> None:
    (weights / KNOWN["vggish"].file).unlink()
    with pytest.raises(ValueError, match=r"vggish-10086976\.pth: missing") as error:
        load_score_set("audioldm", weights, weights, text=False, any_weights=True)
    assert "any_weights" not in str(error.value)

"""What changes a digest of code, and what doesn't: on modules written for the purpose, and on the scores' own code."""

import importlib
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import mntp.io.code_digest
from mntp.io.code_digest import code_digest
from mntp.metrics.audioldm_scores import ToolkitScores
from mntp.metrics.networks.clap import ClapScorer
from mntp.metrics.networks.cnn14 import Cnn14
from mntp.metrics.networks.judge import Judge
from mntp.metrics.networks.vggish import VGGish
from mntp.metrics.score_sets import EmbeddedScores, ScoreSet

TOOLS = """
from math import sqrt

FACTOR = 2
UNUSED = 5

def scale(x):
    if x < 0:
        raise ValueError(f"got {x}")
    return FACTOR * sqrt(x)

def unused(x):
    return -x
"""
NETWORK = """
from digested_tools import scale as scaled

class Base:
    offset = 1

class Network(Base):
    '''Does something.'''
    width: int = 3

    def forward(self, x: float) -> float:
        '''Scale.'''
        return scaled(x) + self.offset  # shifted

    @classmethod
    def load(cls, path):
        return cls()
"""


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Digest of `Network` after texts were replaced in its two modules."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mntp.io.code_digest, "OWN", "digested_tools")

    def found(*replaced: tuple[str, str]) -> str:
        texts = {"digested_tools": TOOLS, "digested_network": NETWORK}
        for old, new in replaced:
            assert sum(text.count(old) for text in texts.values()) == 1, old
            texts = {name: text.replace(old, new) for name, text in texts.items()}
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return code_digest([importlib.import_module("digested_network").Network])

    return found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2", "FACTOR = 3"),
        ("FACTOR * sqrt(x)", "FACTOR * sqrt(x + 1)"),
        ("if x < 0", "if x <= 0"),
        ("offset = 1", "offset = 1.0"),
        ("width: int = 3", "width: int = 4"),
        ("scaled(x) + self", "scaled(x) - self"),
        ("class Network(Base)", "class Network(Base, object)"),
        ("        return scaled", "        x = 1\n        return scaled"),
    ],
)
def test_a_change_of_what_is_computed_counts_wherever_it_stands(digest: Callable[..., str], old: str, new: str) -> None:
    assert digest((old, new)) != digest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'''Does something.'''", "'''Does\n    something else.'''"),
        ("    '''Does something.'''\n", ""),
        ("  # shifted", ""),
        ("x: float) -> float", "x) -> 'int'"),
        ("width: int = 3", "width: float = 3"),
        ('ValueError(f"got {x}")', 'TypeError(f"expected more than {x}")'),
        ("return scaled(x) + self.offset", "return (\n            scaled(x)\n            + self.offset\n        )"),
        ("UNUSED = 5", "UNUSED = 6"),
        ("return -x", "return x"),
        ("return cls()", "return cls"),
    ],
)
def test_words_layout_and_unused_code_do_not_count(digest: Callable[..., str], old: str, new: str) -> None:
    assert digest((old, new)) == digest()


def test_a_digest_is_the_same_on_every_version_of_python(digest: Callable[..., str]) -> None:
    """Pinned: to be seen on other versions than the one at hand."""
    assert digest() == "ce8fda6af082"


def test_what_has_no_source_is_refused() -> None:
    class Local:
        pass

    with pytest.raises(ValueError, match="Local: expected a class or function at the top level of a module's file"):
        code_digest([Local])


PUBLIC = {"Cnn14", "VGGish", "ClapScorer"}
SETS = {"EmbeddedScores", "ToolkitScores"}
# A line of each definition, by module: what it is replaced by, and which definitions must notice.
PATCHES = [
    ("mntp.metrics.networks.judge", "(log_mel[:, None] + 5) / 5", "(log_mel[:, None] + 4) / 5", {"Judge"}),
    ("mntp.audio.log_mel", "LOG_FLOOR = 1e-5", "LOG_FLOOR = 1e-6", {"Judge"}),
    ("mntp.metrics.networks.read_clip", "MIN_SAMPLES = 32_000", "MIN_SAMPLES = 16_000", PUBLIC),
    ("mntp.metrics.networks.spectrograms", "floor = 1e-10", "floor = 1e-9", {"Cnn14", "ClapScorer"}),
    ("mntp.metrics.networks.spectrograms", "filters[0] = 0", "filters[1] = 0", {"VGGish"}),
    ("mntp.metrics.networks.clap", "NUM_SAMPLES = 480_000", "NUM_SAMPLES = 479_999", {"ClapScorer"}),
    ("mntp.pretrained.laion_clap", "MAX_TEXT_TOKENS = 77", "MAX_TEXT_TOKENS = 76", {"ClapScorer"}),
    ("mntp.metrics.networks.base", "with float32():", "if True:", {"Judge", *PUBLIC}),
    ("mntp.metrics.score_sets", "num_splits = 4", "num_splits = 3", {"EmbeddedScores"}),
    ("mntp.metrics.score_sets", "ORDER_SEED = 2020", "ORDER_SEED = 2021", SETS),
    ("mntp.metrics.audioldm_scores", "KL_EPSILON = 1e-6", "KL_EPSILON = 1e-7", {"ToolkitScores"}),
    ("mntp.metrics.kernel", "subset_size: int = 1000", "subset_size: int = 999", {"ToolkitScores"}),
    ("mntp.metrics.divergence", "p_ref * (ref - gen)", "p_ref * (gen - ref)", SETS),
    ("mntp.metrics.jackknife", "(num_clips - 1) * left_out", "num_clips * left_out", SETS),
]  # fmt: skip
DEFINITIONS = (Judge, Cnn14, VGGish, ClapScorer, EmbeddedScores, ToolkitScores)


@pytest.mark.parametrize(("module", "old", "new", "noticed"), PATCHES, ids=str)
def test_every_line_of_a_definition_is_in_its_hash_and_in_no_others(
    monkeypatch: pytest.MonkeyPatch, module: str, old: str, new: str, noticed: set[str]
) -> None:
    def hashes() -> dict[str, str]:
        return {one.__name__: code_digest([one], without=[ScoreSet, code_digest]) for one in DEFINITIONS}

    before, read = hashes(), mntp.io.code_digest.read_source

    def patched(name: str) -> str:
        text = read(name)
        if name != module:
            return text
        assert old in text
        return text.replace(old, new)

    monkeypatch.setattr(mntp.io.code_digest, "read_source", patched)
    after = hashes()
    assert {name for name in before if before[name] != after[name]} == noticed

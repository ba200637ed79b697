"""`mntp judge`, and which judge a run or a store has."""

import json
from pathlib import Path

import pytest
import yaml

from data_modules.scenes import EmbeddedCorpus
from experiments.commands.judge import judge
from experiments.runs.run_or_store import judged_corpus, store_captions
from experiments.scoring.train_judge import judge_path, load_or_train_judge
from tests.experiments.runs.support import Shared, tiny_config

SHORT = EmbeddedCorpus(seed=3, seconds=1.28)


def test_a_store_a_run_and_their_config_have_one_corpus(tmp_path: Path, shared: Shared) -> None:
    config = tiny_config(shared[0])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert judged_corpus(tmp_path) == judged_corpus(shared[0] / "store") == EmbeddedCorpus(**config["data"]["corpus"])


def test_a_trained_judge_has_the_same_weights_again(
    tmp_path: Path, shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = judged_corpus(shared[0] / "store")
    judge(tmp_path, judge_of=shared[0] / "store")
    path = judge_path(tmp_path, corpus)
    assert path.read_bytes() == judge_path(shared[0], corpus).read_bytes()
    assert str(path) in capsys.readouterr().out
    assert load_or_train_judge(tmp_path, corpus).fingerprint() == load_or_train_judge(shared[0], corpus).fingerprint()


@pytest.mark.parametrize(
    ("source", "corpus"),
    [
        ({"kind": "captioned folder", "rows": 3}, EmbeddedCorpus()),
        ({"kind": "embedded corpus", **SHORT.settings()}, SHORT),
    ],
)
def test_other_stores_have_the_default_corpus_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, object], corpus: EmbeddedCorpus
) -> None:
    (tmp_path / "index.json").write_text("{}")
    stored = type("Stored", (), {"index": {"settings": {"source": source}}})
    monkeypatch.setattr("experiments.runs.run_or_store.Store", lambda path: stored)
    assert judged_corpus(tmp_path) == corpus


def test_a_store_of_another_synthesiser_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.json").write_text("{}")
    source = {"kind": "embedded corpus", **EmbeddedCorpus().settings(), "version": 0}
    stored = type("Stored", (), {"index": {"settings": {"source": source}}})
    monkeypatch.setattr("experiments.runs.run_or_store.Store", lambda path: stored)
    with pytest.raises(ValueError, match=r"its corpus is version 0 of the synthesiser, .* prepare the store again"):
        judged_corpus(tmp_path)


def test_a_runs_corpus_may_be_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"corpus": None}}))
    assert judged_corpus(tmp_path) == EmbeddedCorpus()


def test_captions_of_a_store_are_named_by_clip(shared: Shared) -> None:
    store = shared[0] / "store"
    captions = store_captions(store)
    assert sorted(captions) == sorted(path.stem for path in (store / "audio" / "test").iterdir())
    first = sorted(captions)[0]
    assert store_captions(store, [first, "unknown"]) == {first: captions[first]}
    with pytest.raises(ValueError, match=r"store: holds \d+ clips, but none of these"):
        store_captions(store, ["unknown"])
    index = json.loads((store / "index.json").read_text())
    assert index["settings"]["source"]["kind"] == "embedded corpus"

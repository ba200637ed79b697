"""`mntp compare`: folders and runs side by side, score by score; what can't be compared is said."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import experiments.commands.evaluate
from experiments.commands.compare import compare
from experiments.commands.evaluate import evaluate
from experiments.main import call
from experiments.scoring.folders import evaluate_folders
from experiments.scoring.intervals import REPLICATES, read_replicates, replicates_path, write_replicates
from experiments.scoring.pairs import FilePairs, audio_files
from mntp.metrics.audioldm_scores import ToolkitScores
from mntp.metrics.other_weights import OtherWeights
from tests.experiments.scoring.toy_network import tiny_toolkit, write_sound, write_sounds

NUM_CLIPS = 24
Score = Callable[..., Path]


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Score:
    """Evaluate a folder of its own seed into <name>.json."""
    write_sounds(tmp_path / "reference", NUM_CLIPS)
    texts = {f"{i:03d}.wav": f"caption of {'x' * (i + 1)}" for i in range(NUM_CLIPS)}
    (tmp_path / "captions.json").write_text(json.dumps(texts))
    sets: list[Any] = [None]
    monkeypatch.setattr(
        experiments.commands.evaluate, "load_score_set", lambda *_, text, **__: sets[0] or tiny_toolkit(text)
    )

    def scored(name: str, seed: int, score_set: Any = None, captions: bool = True, **options: Any) -> Path:
        sets[0] = score_set
        generated = tmp_path / name
        if not generated.exists():
            write_sounds(generated, NUM_CLIPS, seed)
        out = tmp_path / f"{name}.json"
        given = {"reference": tmp_path / "reference", "captions": tmp_path / "captions.json" if captions else None}
        assert evaluate(generated=generated, out=out, judges=tmp_path / "judges", **given | options) == 0
        capsys.readouterr()
        return out

    return scored


def other_network(name: str) -> ToolkitScores:
    score_set = tiny_toolkit(with_clap=True)
    next(score_set.networks[name].parameters()).data += 1
    return score_set


def shown(capsys: pytest.CaptureFixture[str], *paths: Path, out: Path | None = None) -> str:
    compare(list(paths), out)
    return " ".join(capsys.readouterr().out.split())


def rows_of(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open() as file:
        return {(row["row"], row["metric"]): row for row in csv.DictReader(file)}


def test_systems_side_by_side_with_paired_differences(
    score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = score("one", 1), score("two", 2)
    text = shown(capsys, one, two, out=tmp_path / "table.csv")
    assert "left out" not in text and "no difference" not in text
    rows, metrics = rows_of(tmp_path / "table.csv"), [json.loads(path.read_text()) for path in (one, two)]
    assert {metric for _, metric in rows} == {"fd", "kad", "fad", "fad_jackknife", "kl", "is", "kid", "clap"}
    for name, found in zip(("one", "two"), metrics, strict=True):
        assert float(rows[name, "kid"]["value"]) == found["kid"]
        assert rows[name, "kl"]["protocol_hash"] == found["protocol_hash"]
    difference = rows["two", "kl"]
    assert float(difference["difference"]) == pytest.approx(metrics[1]["kl"] - metrics[0]["kl"])
    assert (
        float(difference["difference_ci_low"])
        < float(difference["difference"])
        < float(difference["difference_ci_high"])
    )
    assert rows["one", "kl"]["difference"] == "" and rows["two", "fd"]["difference"] == ""  # raw distances are biased
    assert metrics[0]["protocol_hash"] != metrics[1]["protocol_hash"]


def test_a_run_of_an_ablation_stands_beside_a_folder(
    score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `experiments.runs.score` writes it."""
    folder = score("theirs", 1)
    clips = tmp_path / "runs" / "AudioNTP-0123-s0" / "evals" / "abcdef"
    write_sounds(clips / "wav", NUM_CLIPS, seed=2)
    pairs = FilePairs(audio_files(tmp_path / "reference"), audio_files(clips / "wav"))
    texts = {f"{i:03d}": f"caption of {'x' * (i + 1)}" for i in range(NUM_CLIPS)}
    found = evaluate_folders(pairs, texts, tiny_toolkit(with_clap=True), tmp_path / "judges" / "features", {"seed": 0})
    (clips / "metrics.json").write_text(json.dumps(found.metrics))
    write_replicates(clips / REPLICATES, found.replicates)
    text = shown(capsys, folder, clips / "metrics.json", out=tmp_path / "table.csv")
    assert "left out" not in text and "no difference" not in text
    rows = rows_of(tmp_path / "table.csv")
    assert rows["AudioNTP-0123-s0 abcdef", "kl"]["difference"] and rows["theirs", "fd"]["value"]


def test_scores_without_captions_are_compared_with_those_that_have_them(
    score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, score("one", 1), score("two", 2, captions=False), out=tmp_path / "table.csv")
    assert "left out: clap, because two lacks it" in text
    assert {metric for _, metric in rows_of(tmp_path / "table.csv")} >= {"fd", "fad", "kl", "is", "kid"}


def test_one_other_network_leaves_out_its_own_scores(
    score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, score("one", 1), score("two", 2, other_network("vggish")), out=tmp_path / "table.csv")
    assert "left out: fad, fad_jackknife, because one and two differ in vggish (" in text
    assert {metric for _, metric in rows_of(tmp_path / "table.csv")} == {"fd", "kad", "kl", "is", "kid", "clap"}


def test_other_references_or_definitions_leave_nothing(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = score("one", 1)
    with monkeypatch.context() as patch:
        patch.setattr(ToolkitScores, "definition", lambda self: "changed")
        two = score("two", 2)
    with pytest.raises(ValueError, match=r"no score can be compared .*differ in definition \(\w+ and changed\)"):
        compare([one, two])
    write_sound(tmp_path / "reference" / "003.wav", seed=99)
    with pytest.raises(ValueError, match=r"one and three differ in reference \(.*score all systems anew"):
        compare([one, score("three", 1)])


def test_other_weights_have_names_of_their_own_and_stand_in_no_column_of_the_papers(
    score: Score, tmp_path: Path
) -> None:
    one, two = score("one", 1), score("two", 2, OtherWeights(tiny_toolkit(with_clap=True)))
    metrics = json.loads(two.read_text())
    assert metrics["judge_kind"] == "any_weights" and "fd" not in metrics and "fd_any" in metrics
    assert set(metrics["protocol"]["scoring"]["inputs"]) == {
        f"{name}_any" for name in json.loads(one.read_text())["protocol"]["scoring"]["inputs"]
    }
    with pytest.raises(ValueError, match="no score can be compared"):
        compare([one, two])


def test_a_row_without_the_clips_values_is_shown_without_a_difference(
    score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = score("one", 1), score("two", 2), score("three", 3)
    replicates_path(two).unlink()
    text = shown(capsys, one, two, three, out=tmp_path / "table.csv")
    assert "no differences: beside two there is no file of the clips' values; score anew" in text
    rows = rows_of(tmp_path / "table.csv")
    assert rows["two", "kl"]["value"] and not rows["two", "kl"]["difference"] and rows["three", "kl"]["difference"]
    assert "beside two there" in shown(capsys, two, one)


def test_a_row_without_intervals_is_shown_without_them(
    score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As earlier versions wrote with --replicates 0."""
    one, two = score("one", 1), score("two", 2)
    two.write_text(json.dumps(json.loads(two.read_text()) | {"intervals": {}}))
    replicates_path(two).unlink()
    for paths in ((one, two), (two, one)):
        assert "beside two there" in shown(capsys, *paths, out=tmp_path / "table.csv")
        rows = rows_of(tmp_path / "table.csv")
        assert rows["two", "kl"]["ci_low"] == "" and rows["one", "kl"]["ci_low"] and rows["two", "kl"]["value"]


def test_doubts_are_said(score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sounds(tmp_path / "two", NUM_CLIPS, seed=2)
    shutil.copy(tmp_path / "two" / "001.wav", tmp_path / "two" / "002.wav")
    one, two = score("one", 1), score("two", 2, allow_faults=True)
    one.write_text(json.dumps(json.loads(one.read_text()) | {"out_of_domain": True}))
    text = shown(capsys, one, two)
    assert "out of domain: the judge was trained on other audio than that of one" in text
    assert "fault of two: 1 of 24 generated clips are copies of others (002 = 001)" in text


def test_values_of_another_number_are_said(score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = score("one", 1), score("two", 2)
    values = read_replicates(replicates_path(two))
    write_replicates(replicates_path(two), values | {"kl": values["kl"][:-4]})
    text = shown(capsys, one, two)
    assert f"no difference of kl: two holds {NUM_CLIPS - 4} values and one {NUM_CLIPS}" in text


def test_files_that_are_no_scores_are_refused_in_one_line(score: Score, tmp_path: Path) -> None:
    one = score("one", 1)
    with pytest.raises(ValueError, match=r"nowhere\.json: no such file; expected the --out of mntp evaluate"):
        compare([one, tmp_path / "nowhere.json"])
    (tmp_path / "other.json").write_text('{"fd": 1.0, "protocol": {"scoring": {"store": "a"}}}')
    with pytest.raises(ValueError, match=r"other\.json: not the scores of .* earlier version; score anew"):
        compare([one, tmp_path / "other.json"])
    (tmp_path / "again").mkdir()
    shutil.copy(one, tmp_path / "again" / "one.json")
    with pytest.raises(ValueError, match="two files are named one"):
        compare([one, tmp_path / "again" / "one.json"])


@pytest.mark.parametrize("words", [["--allow_partial", "true"], ["--allow-partial"], ["--allow-partial=true"]])
def test_a_switch_is_spelt_as_its_help_says(score: Score, tmp_path: Path, words: list[str]) -> None:
    score("one", 1)
    (tmp_path / "one" / "003.wav").unlink()
    options = [
        "--reference",
        f"{tmp_path}/reference",
        "--generated",
        f"{tmp_path}/one",
        "--judges",
        f"{tmp_path}/judges",
    ]
    assert call(evaluate, "evaluate", [*options, *words, "--out", f"{tmp_path}/again.json"]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["missing"] == ["003"]
    with pytest.raises(ValueError, match="lacks 1 of the clips"):
        call(evaluate, "evaluate", [*options, "--allow_partial", "false", "--out", f"{tmp_path}/again.json"])

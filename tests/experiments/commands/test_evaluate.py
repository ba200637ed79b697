"""`mntp evaluate` as a user calls it: what it writes, what it refuses, and which hash a change moves."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import experiments.commands.evaluate
from experiments.commands.evaluate import evaluate, replicates_path
from experiments.main import call
from experiments.scoring.intervals import interval, read_replicates
from tests.experiments.scoring.toy_network import tiny_toolkit, write_sound, write_sounds

NUM_CLIPS = 12
SCORES = {"fd", "kad", "fad", "fad_jackknife", "kl", "is", "kid", "clap"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """References, generated sounds, captions, and the toolkit with tiny networks."""
    monkeypatch.setattr(experiments.commands.evaluate, "load_score_set", lambda *_, text, **__: tiny_toolkit(text))
    write_sounds(tmp_path / "reference", NUM_CLIPS)
    write_sounds(tmp_path / "generated", NUM_CLIPS, seed=1)
    texts = {f"{i:03d}.wav": [f"caption {i} of {'x' * j}" for j in range(1, 4)] for i in range(NUM_CLIPS)}
    (tmp_path / "captions.json").write_text(json.dumps(texts))
    return tmp_path


def run(folder: Path, **options: Any) -> dict[str, Any]:
    options = {"reference": folder / "reference", "generated": folder / "generated", **options}
    out = options.setdefault("out", folder / "out" / "metrics.json")
    assert (
        evaluate(captions=options.pop("captions", folder / "captions.json"), judges=folder / "judges", **options) == 0
    )
    return json.loads(out.read_text())


def hashes(metrics: dict[str, Any]) -> tuple[str, str]:
    return metrics["scoring_hash"], metrics["protocol_hash"]


def test_the_file_says_what_was_scored_and_how(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "generated" / "generation.json").write_text('{"model": "ours", "guidance": 7.0}')
    metrics = run(folder)
    assert set(metrics) >= SCORES
    assert metrics["num_clips"] == NUM_CLIPS and metrics["coverage"] == 1 and metrics["missing"] == []
    assert not metrics["out_of_domain"]  # said of the embedded judge alone
    assert metrics["protocol"]["generation"] == {"model": "ours", "guidance": 7.0}
    scoring = metrics["protocol"]["scoring"]
    assert set(scoring["networks"]) == {"cnn14", "vggish", "clap"}
    assert scoring["inputs"]["fd"] == ["cnn14"] and scoring["inputs"]["clap"] == ["clap", "captions"]
    assert metrics["health"] == {"faults": [], "reference_seconds": [0.25, 0.25], "generated_seconds": [0.25, 0.25]}
    assert {"commit", "dirty", "versions", "host"} <= set(metrics["provenance"])
    replicates = read_replicates(replicates_path(folder / "out" / "metrics.json"))
    # Raw distances aren't compared, and ten splits of 12 clips are too few to leave one out.
    assert set(replicates) == SCORES - {"fd", "fad", "is"} and set(metrics["intervals"]) == SCORES - {"is"}
    for name, values in replicates.items():
        assert len(values) == NUM_CLIPS
        floor = -np.inf if name in ("kl", "clap") else 0.0
        assert metrics["intervals"][name] == pytest.approx(interval(metrics[name], values, floor))
    shown = capsys.readouterr().out
    assert f"N = {NUM_CLIPS} clips" in shown and "95 % over clips" in shown and "12 clips are few" in shown
    assert all(value in shown for value in (metrics["judge"], *hashes(metrics)))


def test_without_captions_there_is_no_score_on_captions(folder: Path) -> None:
    metrics = run(folder, captions=None)
    assert "clap" not in metrics and metrics["protocol"]["scoring"]["captions"] is None
    assert set(metrics["protocol"]["scoring"]["networks"]) == {"cnn14", "vggish"}


def test_dates_folder_names_slashes_and_batch_size_change_nothing(folder: Path) -> None:
    first = run(folder)
    for path in (folder / "reference").iterdir():
        os.utime(path, (1, 1))
    shutil.copytree(folder / "generated", folder / "elsewhere")
    words = ["--reference", f"{folder}/reference/", "--generated", f"{folder}/elsewhere/", "--batch-size", "5"]
    words += ["--captions", f"{folder}/captions.json", "--judges", f"{folder}/other_cache"]
    assert call(evaluate, "evaluate", [*words, "--out", f"{folder}/again.json"]) == 0
    again = json.loads((folder / "again.json").read_text())
    assert hashes(again) == hashes(first)
    for name in SCORES:
        assert again[name] == pytest.approx(first[name], rel=1e-4, abs=1e-6)
    assert sorted(path.name for path in (folder / "elsewhere").iterdir()) == sorted(
        path.name for path in (folder / "generated").iterdir()
    )


def test_references_captions_and_networks_are_the_yardstick(folder: Path) -> None:
    first = run(folder)
    assert hashes(run(folder, caption_seed=1)) != hashes(first)
    assert hashes(run(folder, captions=None)) != hashes(first)
    assert hashes(run(folder)) == hashes(first)
    write_sound(folder / "reference" / "003.wav", seed=99)
    assert run(folder)["scoring_hash"] != first["scoring_hash"]


def test_generated_sounds_and_how_they_were_made_are_in_the_protocol_alone(folder: Path) -> None:
    first = run(folder)
    write_sound(folder / "generated" / "003.wav", seed=99)
    other = run(folder)
    assert other["scoring_hash"] == first["scoring_hash"] and other["kl"] != first["kl"]
    (folder / "generated" / "generation.json").write_text('{"guidance": 3.0}')
    third = run(folder)
    assert third["scoring_hash"] == first["scoring_hash"]
    assert len({metrics["protocol_hash"] for metrics in (first, other, third)}) == 3


def test_unequal_sets_are_refused_or_scored_with_their_coverage(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(folder)
    for i in (4, 7):
        (folder / "generated" / f"{i:03d}.wav").unlink()
    with pytest.raises(ValueError, match=r"generated lacks 2 of the clips .*\(004, 007\).*--allow_partial"):
        run(folder)
    metrics = run(folder, allow_partial=True)
    assert metrics["coverage"] == 10 / 12 and metrics["missing"] == ["004", "007"]
    assert metrics["num_clips"] == 10 and metrics["scoring_hash"] != whole["scoring_hash"]
    assert "coverage 83.3%: 2 references have no partner" in capsys.readouterr().out


def test_a_folder_of_one_file_or_none(folder: Path) -> None:
    for path in list((folder / "generated").iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match="generated: holds 1 WAV or FLAC files; expected a folder of at least 2"):
        run(folder)
    shutil.rmtree(folder / "reference")
    (folder / "reference").mkdir()
    with pytest.raises(ValueError, match="reference: holds 0 WAV or FLAC files"):
        run(folder)


def test_every_unusable_file_is_named_and_nothing_is_written(folder: Path) -> None:
    (folder / "generated" / "002.wav").write_bytes(b"no sound")
    (folder / "generated" / "005.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 12 files .*002\.wav.*; .*005\.wav"):
        run(folder)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--batch_size: got 0, expected at least 1"),
        ({"reference": None}, "expected --reference DIR and --generated DIR"),
        ({"any_weights": True}, "--any_weights: the embedded judge is part of the suite"),
        ({"judge_of": Path("tests")}, r"tests: neither a run \(config\.yaml\) nor a store \(index\.json\)"),
    ],
)
def test_options_that_mean_nothing(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(folder, **options)


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_generation_file_that_is_no_object_is_refused_before_anything_is_embedded(folder: Path, content: str) -> None:
    (folder / "generated" / "generation.json").write_text(content)
    with pytest.raises(ValueError, match=r"generated/generation\.json: "):
        run(folder)
    assert not (folder / "judges").exists()


def test_missing_weights_are_named_with_source_licence_size_and_command(tmp_path: Path) -> None:
    write_sounds(tmp_path / "a", 10)
    with pytest.raises(ValueError, match="missing") as error:
        evaluate(tmp_path / "a", tmp_path / "a", judge="audioldm", weights=tmp_path / "weights", judges=tmp_path / "j")
    for part in ("Cnn14_16k", "358.7 MB", "CC BY 4.0", "https://zenodo.org/", "mntp weights fetch cnn14_16k --folder"):
        assert part in str(error.value)


def test_two_captions_for_a_name_are_refused_before_a_judge_is_trained(tmp_path: Path) -> None:
    write_sounds(tmp_path / "a", 2)
    (tmp_path / "captions.csv").write_text("file,caption\na/000.wav,a click\nb/000.wav,rain\n")
    with pytest.raises(ValueError, match=r"captions\.csv, line 3: a second file named 000\.wav"):
        evaluate(tmp_path / "a", tmp_path / "a", tmp_path / "captions.csv", judges=tmp_path / "judges")
    assert not (tmp_path / "judges").exists()


def test_one_set_against_itself_is_zero_with_an_interval_around_it(folder: Path) -> None:
    metrics = run(folder, generated=folder / "reference")
    assert metrics["fd"] == metrics["fad"] == 0
    assert np.ptp(metrics["intervals"]["fd"]) < 1e-3

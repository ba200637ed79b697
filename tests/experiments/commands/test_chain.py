"""README's chain: train a model, generate from it, evaluate what it generated, compare it with a row of a table."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from experiments.commands.compare import compare
from experiments.commands.evaluate import evaluate
from experiments.commands.generate import generate
from tests.experiments.runs.support import PROTOCOL, Shared, finish, write_run


def scores(path: Path) -> dict[str, float]:
    metrics: dict[str, Any] = json.loads(path.read_text())
    return {score: metrics[score] for score in metrics["protocol"]["scoring"]["inputs"]}


@pytest.mark.slow
def test_train_generate_evaluate_and_compare_without_renaming(
    tmp_path: Path, shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    run, store = tmp_path / "AudioNTP-tiny-s0", shared[0] / "store"
    write_run(run, shared, "audio_ntp")
    finish(run, shared)
    row = run / "evals" / PROTOCOL / "metrics.json"
    given: dict[str, Any] = {"reference": store / "audio" / "test", "captions": store, "judges": shared[0]}
    given |= {"judge_of": run, "in_domain": True, "allow_faults": True}  # four clips are few

    # The row's own sounds get the row's own digits from `mntp evaluate`.
    again = tmp_path / "again.json"
    assert evaluate(generated=row.parent / "wav", out=again, **given) == 0
    assert scores(again) == scores(row) and len(scores(row)) > 4
    assert (
        json.loads(row.read_text())["protocol"]["generated"] == json.loads(again.read_text())["protocol"]["generated"]
    )
    assert "few clips" in {fault["kind"] for fault in json.loads(row.read_text())["health"]["faults"]}

    # Sounds of the trained model, from a table of captions that names the references' files.
    table = tmp_path / "captions.csv"
    names = sorted(path.stem for path in given["reference"].iterdir())
    captions = {name: f"a bell rings, then rain number {number}" for number, name in enumerate(names)}
    table.write_text("file,caption\n" + "".join(f'audio/{name}.flac,"{text}"\n' for name, text in captions.items()))
    generate(run, prompts=table, out=tmp_path / "ours")
    assert sorted(path.name for path in (tmp_path / "ours").glob("*.wav")) == [f"{name}.wav" for name in names]
    ours = tmp_path / "ours.json"
    assert evaluate(generated=tmp_path / "ours", out=ours, **given | {"captions": table}) == 0
    assert json.loads(ours.read_text())["protocol"]["generation"]["system"] == "AudioNTP"

    # From the store's own captions, under the names of its clips: all scores stand beside the row's.
    generate(run, prompts=store, out=tmp_path / "of_store")
    of_store = tmp_path / "of_store.json"
    assert evaluate(generated=tmp_path / "of_store", out=of_store, **given) == 0
    capsys.readouterr()
    compare([row, of_store, ours], tmp_path / "table.csv")
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out: text_judge, because AudioNTP-tiny-s0 abc and ours differ in captions" in shown
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in lines[1:]} == {"AudioNTP-tiny-s0 abc", "of_store", "ours"}
    assert all(math.isfinite(float(line.split(",")[2])) for line in lines[1:])
    compare([row, of_store])
    assert "left out: " not in capsys.readouterr().out

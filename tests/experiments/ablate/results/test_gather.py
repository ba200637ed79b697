"""From run folders to tables: nothing is invented, a missing number is its state, rows are compared fairly."""

import csv
import fcntl
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import Plan, PlannedCell, PlannedTable, write_plan
from experiments.ablate.results.csv_files import COLUMNS
from experiments.ablate.results.figures import score_points
from experiments.ablate.results.gather import gather_results
from experiments.ablate.results.terminal import table_rich
from experiments.ablate.show.status_table import status_table
from experiments.ablate.slurm.state import Queue
from experiments.runs.state import DONE, FAILED, INTERRUPTED, NOT_RUN, RUNNING, seconds
from experiments.scoring.intervals import REPLICATES, write_replicates
from experiments.scoring.metrics import shown_metrics
from tests.experiments.ablate.results_support import PROTOCOL, cell, finish, plan_of, scores, scoring_folder

METRICS = shown_metrics("embedded")


def planned(*cells: PlannedCell) -> Plan:
    return plan_of(*cells, table3=PlannedTable("Table 3: golden", baseline="G"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five rows: a reference, two finished ones, one that failed, one that needs the failed one."""
    cells = [
        cell(tmp_path, "table3", "truth", reference=True, source="ground_truth", system="",
             settings={"system": "", "schedule": ""}),
        cell(tmp_path, "table3", "G", published={"fd": "14.81", "fad": "1.68", "kl": "1.16", "is": "9.67"}),
        cell(tmp_path, "table3", "I", description="with a | bar and a <b>", published={"fd": "20.82"}),
        cell(tmp_path, "table3", "K"),
        cell(tmp_path, "table3", "B", needs={"3K": str(tmp_path / "runs" / "AudioMNTP-K-s0")}),
    ]  # fmt: skip
    write_plan(planned(*cells), tmp_path)
    finish(cells[0], scores(0.0, None))
    finish(cells[1], scores(2.5, 0.2468))
    finish(cells[2], scores(3.5, 0.31, a_new_score=7.0))
    scoring = Path(cells[3].run_dir) / "evals" / PROTOCOL
    scoring.mkdir(parents=True)
    (scoring / "failure.json").write_text(json.dumps({"reason": "exit code 1\nTraceback\nValueError: no"}))
    return tmp_path


GOLDEN_CSV = """\
row,system,schedule,state,scale,judge,seed,num_clips,fd_judge,kl_judge,is_judge,text_judge,ntp_loss,train_seconds,\
fd_judge_ci_low,fd_judge_ci_high,kl_judge_ci_low,kl_judge_ci_high,is_judge_ci_low,is_judge_ci_high,\
text_judge_ci_low,text_judge_ci_high,ntp_loss_ci_low,ntp_loss_ci_high,protocol_hash,\
published_fd,published_fad,published_kl,published_is,published_clap
truth,,,done,micro,embedded,0,64,0.0,0.5,3.25,0.4,n/a,n/a,,,,,,,,,,,9a0700000000,,,,,
G,AudioMNTP,C,done,micro,embedded,0,64,2.5,0.5,3.25,0.4,0.2468,80.0,,,,,,,,,,,9a0700000000,14.81,1.68,1.16,9.67,
I,AudioMNTP,C,done,micro,embedded,0,64,3.5,0.5,3.25,0.4,0.31,80.0,,,,,,,,,,,9a0700000000,20.82,,,,
K,AudioMNTP,C,failed,micro,embedded,0,,,,,,,,,,,,,,,,,,9a0700000000,,,,,
B,AudioMNTP,C,not run,micro,embedded,0,,,,,,,,,,,,,,,,,,9a0700000000,,,,,
"""

GOLDEN_MARKDOWN = """\
# Table 3: golden

## Ours, scale `micro`, judge `embedded`

| row | system | schedule | clips | fd_judge ↓ | kl_judge ↓ | is_judge ↑ | text_judge ↑ | ntp_loss ↓ | train_seconds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| truth |  |  | 64 | 0.000 | 0.500 | 3.250 | 0.400 | n/a | n/a |
| G | AudioMNTP | C | 64 | **2.500** | **0.500** | **3.250** | **0.400** | **0.2468** | 80 |
| I | AudioMNTP | C | 64 | 3.500 | **0.500** | **3.250** | **0.400** | 0.3100 | 80 |
| K | AudioMNTP | C |  | failed | failed | failed | failed | failed | failed |
| B | AudioMNTP | C |  | not run | not run | not run | not run | not run | not run |

- truth: row truth
- G: row G
- I: with a \\| bar and a &lt;b>
- K: row K
- B: row B

Notes:

- K: failed: exit code 1: ValueError: no
- B: not run: needs 3K, which has no final checkpoint

## Published

The paper's values were measured at another scale, on another corpus and by other judges: they are not comparable \
with the ones above; only the order of rows may be.

| row | fd | fad | kl | is | clap |
| --- | --- | --- | --- | --- | --- |
| G | 14.81 | 1.68 | 1.16 | 9.67 | not given |
| I | 20.82 | not given | not given | not given | not given |
"""


def test_the_golden_table(folder: Path) -> None:
    gather_results(folder)
    assert (folder / "table3.csv").read_text() == GOLDEN_CSV
    assert (folder / "table3.md").read_text() == GOLDEN_MARKDOWN
    first = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    gather_results(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == first
    assert sorted(first) == [
        "plan.json", "results.csv", "table3.csv", "table3.md", "table3.tex", "table3_differences.csv",
    ]  # fmt: skip


def test_the_long_table(folder: Path) -> None:
    gather_results(folder)
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert tuple(rows[0]) == COLUMNS == (
        "matrix", "table", "row", "system", "scale", "seed", "train_hash", "protocol_hash", "metric", "value",
        "ci_low", "ci_high", "n", "coverage", "gpu_seconds", "state", "commit",
    )  # fmt: skip
    g = {row["metric"]: row for row in rows if row["row"] == "G"}
    assert set(g) == set(METRICS)
    found = {"value": "2.5", "n": "", "ci_low": "", "coverage": "0.5", "state": "done", "commit": "0123abc"}
    assert g["fd_judge"] | found == g["fd_judge"]
    assert g["ntp_loss"]["coverage"] == ""  # another split, another number of clips
    assert g["train_seconds"]["n"] == "" and g["train_seconds"]["value"] == "80.0"
    assert [row["metric"] for row in rows if row["row"] == "I"][-1] == "a_new_score"
    assert "ntp_loss" not in {row["metric"] for row in rows if row["row"] == "truth"}


def test_a_missing_cell_never_becomes_a_number(folder: Path) -> None:
    gather_results(folder)
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    missing = [row for row in rows if row["row"] in "KB"]
    assert len(missing) == 2 * len(METRICS)
    for row in missing:
        assert row["value"] == row["n"] == row["coverage"] == "" and row["state"] in ("failed", "not run")


def test_a_value_that_is_not_finite_or_no_number_is_never_best(folder: Path) -> None:
    nan = scores(float("nan"), 0.1)
    run = folder / "runs" / "AudioMNTP-G-s0" / "evals" / PROTOCOL / "metrics.json"
    run.write_text(json.dumps(nan | {"kl_judge": None, "is_judge": True}))
    gather_results(folder)
    line = next(line for line in (folder / "table3.md").read_text().splitlines() if line.startswith("| G"))
    assert line.split(" | ")[4:7] == ["nan", "n/a", "n/a"]


def test_rows_that_look_equal_share_the_bold_and_one_row_alone_has_none(folder: Path) -> None:
    run = folder / "runs" / "AudioMNTP-I-s0" / "evals" / PROTOCOL / "metrics.json"
    run.write_text(json.dumps(scores(2.50001, 0.31)))
    gather_results(folder)
    assert (folder / "table3.md").read_text().count("**2.500**") == 2
    run.unlink()
    gather_results(folder)
    assert "**" not in (folder / "table3.md").read_text()


def test_scores_out_of_the_judges_domain_are_marked(folder: Path) -> None:
    run = folder / "runs" / "AudioMNTP-I-s0" / "evals" / PROTOCOL / "metrics.json"
    run.write_text(json.dumps(scores(3.5, 0.31, out_of_domain=True)))
    gather_results(folder)
    assert "- I: out of domain: the judge was trained on another corpus" in (folder / "table3.md").read_text()


def test_a_torn_metrics_file_is_that_cells_failure(folder: Path) -> None:
    run = folder / "runs" / "AudioMNTP-G-s0" / "evals" / PROTOCOL / "metrics.json"
    run.write_text('{"fd_judge": 2')
    results = {result.cell.row: result for result in gather_results(folder).results}
    assert results["G"].state.state == FAILED and "metrics.json: not JSON" in results["G"].state.reason
    assert results["I"].state.state == DONE


def test_states_come_from_files_alone(tmp_path: Path) -> None:
    item = cell(tmp_path, "table3", "G")
    run, scoring = Path(item.run_dir), Path(item.run_dir) / "evals" / PROTOCOL
    assert cell_state(item).state == NOT_RUN and cell_state(item).reason == "not started yet"
    assert cell_state(replace(item, selected=False)).reason == "not among the rows asked for"
    scoring.mkdir(parents=True)
    assert cell_state(item).state == NOT_RUN
    progress = {"phase": "training", "step": 120, "max_steps": 400, "time": time.time()}
    (run / "progress.json").write_text(json.dumps(progress))
    assert cell_state(item).state == INTERRUPTED and "training 120/400" in cell_state(item).reason
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cell_state(item).state == RUNNING
        (run / "progress.json").write_text(json.dumps(progress | {"protocol": "another"}))
        assert cell_state(item).state == INTERRUPTED  # its process is at another scoring of the same run
    (run / "run.json").write_text(json.dumps({"state": "failed", "error": "the loss is not finite"}))
    assert cell_state(item).state == FAILED and cell_state(item).reason == "the loss is not finite"
    (scoring / "metrics.json").write_text(json.dumps(scores(1.0, 0.2)))
    assert cell_state(item).state == DONE


def test_a_plan_that_holds_the_curves_of_schedules_is_read(folder: Path) -> None:
    content = json.loads((folder / "plan.json").read_text())
    del content["schedules"]
    content["laws"] = {"C": {"formula": "Fixed(0.7)", "mean": 0.7, "density": [0.0], "atoms": [[0.7, 1.0]]}}
    (folder / "plan.json").write_text(json.dumps(content))
    gather_results(folder)
    assert (folder / "table3.md").read_text() == GOLDEN_MARKDOWN


def test_several_seeds_are_told_apart(folder: Path) -> None:
    cells = [cell(folder, "table3", "G"), cell(folder, "table3", "G", seed=1, run_dir=str(folder / "runs/x-s1"))]
    write_plan(planned(*cells), folder)
    gather_results(folder)
    text = (folder / "table3.md").read_text()
    assert "| G | AudioMNTP | C | 0 | 64 |" in text and "- G (seed 1): not run" in text
    assert text.count("- G: row G") == 1


def test_the_terminal_shows_times_reasons_and_states(folder: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    gathered = gather_results(folder)
    console.print(table_rich(gathered.frame))
    console.print(status_table(gathered.plan, Queue()))
    for part in ("not run", "failed", "2.500", "1:20", "19 s", "needs 3K", "ValueError: no"):
        assert part in out.getvalue()


@pytest.mark.parametrize(("value", "text"), [(None, ""), (7.2, "7 s"), (59.7, "1:00"), (65, "1:05"), (7384, "2:03:04")])
def test_durations_read_well(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_at_the_papers_scale_and_judge_ours_and_the_papers_are_compared(tmp_path: Path) -> None:
    items = [cell(tmp_path, "table3", "G", scale="base", published={"fd": "14.81", "kl": "1.16"}, seed=s,
                  run_dir=str(tmp_path / "runs" / f"G-s{s}")) for s in (0, 1)]  # fmt: skip
    for item, fd in zip(items, (14.5, 15.0), strict=True):
        finish(
            item,
            {"fd": fd, "num_clips": 64, "plan_scoring_hash": scores(0, None)["plan_scoring_hash"]},
            gpu_seconds=7200.0,
        )
    write_plan(plan_of(*items, judge="audioldm"), tmp_path)
    gather_results(tmp_path)
    text = (tmp_path / "table3.md").read_text()
    assert "| G (seed 0) | 14.81 (-0.31) | not given | 1.16 | not given | not given |" in text
    assert "| G (seed 1) | 14.81 (+0.19) |" in text and "not comparable" not in text
    assert "gpu_hours |" in text and "| 2.00 |" in text
    write_plan(plan_of(*items), tmp_path)  # the same numbers by another judge's name
    gather_results(tmp_path)
    text = (tmp_path / "table3.md").read_text()
    assert "not comparable" in text and "| G | 14.81 | not given |" in text


def test_figures_show_what_their_csv_says(tmp_path: Path) -> None:
    sweep = [cell(tmp_path, "figure6a", name, run_dir=str(tmp_path / "runs" / name)) for name in ("1", "3", "7")]
    timed = [cell(tmp_path, "table4", name) for name in ("1", "6")] + [replace(sweep[0], table="table4", row="again")]
    tables = {
        "figure6a": PlannedTable("Figure 6a"),
        "table4": PlannedTable("Table 4", ("sample_seconds",)),
        "heads": PlannedTable("Heads"),
    }
    write_plan(plan_of(*sweep, *timed, cell(tmp_path, "heads", "x"), **tables), tmp_path)
    gather_results(tmp_path)
    assert not list(tmp_path.glob("*.png"))
    for item, fd in zip((*sweep[:2], *timed[:2]), (3.0, 2.0, 4.0, 1.0), strict=True):
        finish(item, scores(fd, None, intervals={"fd_judge": [fd - 0.5, fd + 1]}))
    gather_results(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["figure4.png", "figure6a.png"]
    lines = csv.DictReader(io.StringIO((tmp_path / "figure4.csv").read_text()))
    rows = [row for row in lines if row["metric"] == "fd_judge"]
    assert [(row["table"], row["row"], row["value"]) for row in rows] == [
        ("table4", "1", "4.0"), ("table4", "6", "1.0"), ("table4", "again", "3.0"),
    ]  # fmt: skip
    assert {float(row["seconds_per_clip"]) for row in rows} == {19.0 / 64}
    assert (rows[0]["ci_low"], rows[0]["ci_high"], rows[0]["n"]) == ("3.5", "5.0", "64")
    assert "1,AudioMNTP,C,done" in (tmp_path / "figure6a.csv").read_text()
    swept = score_points(gather_results(tmp_path).frame)["figure6a"]
    assert [(p.x, p.value, p.ci_low, p.ci_high) for p in swept.itertuples() if p.metric == "fd_judge"] == [
        (1.0, 3.0, 2.5, 4.0), (3.0, 2.0, 1.5, 3.0),
    ]  # fmt: skip
    for item in timed:
        (scoring_folder(item) / "metrics.json").unlink()
    gather_results(tmp_path)
    assert not (tmp_path / "figure4.png").exists() and not (tmp_path / "figure4.csv").exists(), "no stale picture"


def resample(item: PlannedCell, **spread: tuple[float, float]) -> None:
    """Intervals and pseudo-values of a finished cell: for each metric the mean and the slope of those of 101 clips."""
    path = Path(item.run_dir) / "evals" / PROTOCOL / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["intervals"] = {name: [metrics[name] - 1, metrics[name] + 3] for name in spread}
    path.write_text(json.dumps(metrics | {"num_held_out_clips": 32}))
    steps = np.linspace(-1, 1, 101)
    write_replicates(path.with_name(REPLICATES), {name: mean + slope * steps for name, (mean, slope) in spread.items()})


def test_intervals_stand_beside_the_values(folder: Path) -> None:
    resample(cell(folder, "table3", "G"), fd_judge=(9.0, 1.0), ntp_loss=(0.5, 0.1))
    gather_results(folder)
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    g = {row["metric"]: row for row in rows if row["row"] == "G"}
    assert (g["fd_judge"]["ci_low"], g["fd_judge"]["ci_high"], g["fd_judge"]["n"]) == ("1.5", "5.5", "64")
    assert g["ntp_loss"]["n"] == "32"
    assert g["kl_judge"]["ci_low"] == g["kl_judge"]["n"] == ""
    assert "| **2.500 ± 2.000** |" in (folder / "table3.md").read_text()
    assert "biased at small numbers" in (folder / "table3.md").read_text()


def test_rows_are_compared_on_the_same_draws(folder: Path) -> None:
    """Two rows whose scores swing by 5, but together: their difference hardly moves, and is separable."""
    resample(cell(folder, "table3", "G"), fd_judge=(9.0, 5.0), kl_judge=(1.0, 1.0))
    resample(cell(folder, "table3", "I"), fd_judge=(9.5, 5.2), kl_judge=(1.0, -1.0))
    gather_results(folder)
    lines = {row["metric"]: row for row in csv.DictReader(io.StringIO((folder / "table3_differences.csv").read_text()))}
    fd, kl = lines["fd_judge"], lines["kl_judge"]
    assert (fd["row"], fd["baseline"], fd["seeds"], fd["separable"], kl["separable"]) == ("I", "G", "0", "yes", "no")
    # Around the difference of the scores (3.5 - 2.5), not of the pseudo-values' means (0.5): their spread is 0.2 and 2
    # times 0.586, that of 101 steps from -1 to 1, and 1.984 standard errors are its 1.984 / 101^1/2.
    assert float(fd["difference"]) == 1.0
    assert [float(fd[end]) for end in ("ci_low", "ci_high")] == pytest.approx([1 - 0.02314, 1 + 0.02314], abs=1e-5)
    assert (float(kl["ci_low"]), float(kl["ci_high"])) == pytest.approx((-0.2314, 0.2314), abs=1e-4)
    text = (folder / "table3.md").read_text()
    assert "| I | +1.000 [+0.977, +1.023] | +0.000 [-0.231, +0.231] not separable |" in text


def test_rows_with_the_same_samples_are_called_equal(folder: Path) -> None:
    for row in ("G", "I"):
        resample(cell(folder, "table3", row), kl_judge=(1.0, 0.5))
    gather_results(folder)
    assert "| I | equal |" in (folder / "table3.md").read_text()
    assert "I,G,kl_judge,0,0.0,0.0,0.0,no" in (folder / "table3_differences.csv").read_text()


VELOCITY = {"name": "ntp_velocity_loss", "digits": 2, "better": -1}
ACCURACY = {"name": "codec_accuracy", "digits": 1, "better": 1}


def test_the_held_out_metric_that_a_run_declares_has_a_column(folder: Path) -> None:
    cells = [cell(folder, "table3", row) for row in ("G", "I", "L", "M", "K")]
    found = {"held_out_metric": VELOCITY}
    finish(cells[0], scores(2.5, None, ntp_velocity_loss=0.456, ntp_velocity_loss_sound=0.1), **found)
    finish(cells[1], scores(3.5, None, ntp_velocity_loss=0.123), **found)
    finish(cells[2], scores(3.5, None, codec_accuracy=7.77), held_out_metric=ACCURACY)
    finish(cells[3], scores(3.5, None, codec_accuracy=8.88), held_out_metric=ACCURACY)
    resample(cells[0], ntp_velocity_loss=(1.0, 0.1))
    resample(cells[1], ntp_velocity_loss=(1.0, 0.1))
    resample(cells[2], codec_accuracy=(1.0, 0.1))
    write_plan(planned(*cells), folder)
    gather_results(folder)
    lines = (folder / "table3.md").read_text().splitlines()
    assert "| ntp_velocity_loss ↓ | codec_accuracy ↑ | train_seconds |" in lines[4]
    values = {line.split(" | ")[0]: line.split(" | ")[8:10] for line in lines[6:11]}
    assert values["| G"] == ["0.46 ± 2.00", "n/a"] and values["| I"] == ["**0.12 ± 2.00**", "n/a"]
    assert values["| L"] == ["n/a", "7.8 ± 2.0"] and values["| M"] == ["n/a", "**8.9**"]
    assert values["| K"] == ["failed", "failed"]
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    listed = {(row["row"], row["metric"]): row for row in rows}
    assert {("G", "ntp_velocity_loss_sound"), ("K", "codec_accuracy")} <= set(listed)
    assert not {metric for _, metric in listed if metric == "ntp_loss"}
    # A measure whose name says nothing of a loss rests on the held-out clips, too.
    assert listed["L", "codec_accuracy"]["n"] == listed["G", "ntp_velocity_loss"]["n"] == "32"
    differences = csv.DictReader(io.StringIO((folder / "table3_differences.csv").read_text()))
    assert [(row["row"], row["metric"]) for row in differences] == [("I", "ntp_velocity_loss")]


def test_rows_recorded_before_heads_declared_their_metric_keep_their_column(folder: Path) -> None:
    new = cell(folder, "table3", "L")
    finish(new, scores(3.5, None, ntp_velocity_loss=0.123), held_out_metric=VELOCITY)
    write_plan(planned(cell(folder, "table3", "G"), new), folder)
    gather_results(folder)
    text = (folder / "table3.md").read_text()
    assert "| ntp_loss ↓ | ntp_velocity_loss ↓ |" in text and "| **2.500** |" in text and "| 0.2468 | n/a |" in text


def test_a_share_that_the_paper_prints_in_percent_is_not_subtracted(tmp_path: Path) -> None:
    item = cell(tmp_path, "table4", "1", scale="base", published={"fd": "16.97", "head_share": "5.4%"})
    metrics = {"fd": 16.5, "num_clips": 64, "plan_scoring_hash": scores(0, None)["plan_scoring_hash"]}
    finish(item, metrics, num_parameters=1000, num_head_parameters=54)
    table = PlannedTable("Table 4", ("head_share",))
    write_plan(plan_of(item, judge="audioldm", table4=table), tmp_path)
    gather_results(tmp_path)
    text = (tmp_path / "table4.md").read_text()
    assert "| 16.97 (-0.47) |" in text and "| 5.4% |" in text and "| 0.054 |" in text


def test_seeds_are_averaged_and_must_agree(folder: Path) -> None:
    cells = [
        cell(folder, "table3", row, seed=seed, run_dir=str(folder / "runs" / f"{row}-s{seed}"))
        for seed in (3, 4, 5)
        for row in ("G", "I")
    ]
    for item, fd in zip(cells, (1.0, 2.0, 1.0, 3.0, 1.0, 2.5), strict=True):
        finish(item, scores(fd, None))
        resample(item, fd_judge=(0.0, 0.1))
    write_plan(planned(*cells), folder)
    gather_results(folder)
    row = next(csv.DictReader(io.StringIO((folder / "table3_differences.csv").read_text())))
    assert (row["seeds"], row["difference"], row["separable"]) == ("3 4 5", "1.5", "yes")
    assert "| I | 2.500, 0.500, 3 |" in (folder / "table3.md").read_text()
    path = Path(cells[-1].run_dir) / "evals" / PROTOCOL / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fd_judge": 0.9}))  # now one seed says the opposite
    gather_results(folder)
    row = next(csv.DictReader(io.StringIO((folder / "table3_differences.csv").read_text())))
    assert float(row["ci_low"]) > 0 and row["separable"] == "no"


def test_a_row_that_does_not_say_how_it_was_scored_is_refused(folder: Path) -> None:
    path = folder / "runs" / "AudioMNTP-I-s0" / "evals" / PROTOCOL / "metrics.json"
    metrics = scores(3.5, 0.31)
    del metrics["plan_scoring_hash"]
    path.write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=r"table3 row I: its metrics\.json .* was scored as None"):
        gather_results(folder)
    assert not (folder / "results.csv").exists()


def test_a_row_that_was_scored_in_another_way_is_refused(folder: Path) -> None:
    path = folder / "runs" / "AudioMNTP-I-s0" / "evals" / PROTOCOL / "metrics.json"
    path.write_text(json.dumps(scores(3.5, 0.31, plan_scoring_hash="0" * 12)))
    with pytest.raises(ValueError, match=r"table3 row I: its metrics\.json .* was scored as 000000000000"):
        gather_results(folder)
    assert not (folder / "results.csv").exists()

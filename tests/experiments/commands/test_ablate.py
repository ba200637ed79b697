"""The commands: plan, run and gather as one line; looking at results never imports torch."""

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from experiments.ablate.local import execute
from experiments.ablate.local.display import JobView
from experiments.ablate.local.runner import InterruptedRunError
from experiments.ablate.plan.jobs import parse_seeds
from experiments.ablate.plan.options import PlanOptions, ResultsOptions
from experiments.ablate.plan.plan_file import Plan, PlannedCell, read_plan, write_plan
from experiments.commands import ablate as cli
from experiments.commands import ablate_cluster as commands
from experiments.config.options import JudgeOptions
from experiments.runs.state import DONE, INTERRUPTED
from tests.experiments.ablate.support import (
    REPOSITORY,
    SHARED,
    calls,
    fake_command,
    fake_job,
    prepare_data,
    resolve,
    write_world,
)

JUDGE = types.SimpleNamespace(fingerprint=lambda: SHARED["judge"])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the matrix over bare configs, a resolver without Lightning, and the fake run as its command."""

    def slow_fields(config: dict) -> dict:
        return resolve(config) | {"fake": {"mode": "ok", "steps": 1, "seconds": 0.0}}

    stand_ins = {
        "experiments.config.resolve": {"resolve": slow_fields},
        "experiments.runs.data": {"prepare_data": prepare_data, "score_set_of": lambda *_: JUDGE},
    }
    for name, members in stand_ins.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cli, "run_command", lambda *_: fake_command)
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path)
    yield tmp_path


def test_one_command_runs_the_rows_and_writes_the_tables(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(PlanOptions(rows="3A,3G,8C")) == 0
    assert sorted(path.name for path in (world / "results").iterdir()) == [
        "plan.json", "report.html", "results.csv", "table3.csv", "table3.md", "table3.tex", "table3_differences.csv",
        "table8.csv", "table8.md", "table8.tex", "table8_differences.csv",
    ]  # fmt: skip
    assert len(list((world / "runs").iterdir())) == 2
    rows = [line.split(",") for line in (world / "results/table8.csv").read_text().splitlines()]
    states = {row[0]: row[rows[0].index("state")] for row in rows}
    assert states["C"] == "done" and states["A"] == "not run"
    assert cli.run(PlanOptions(rows="3A,3G,8C")) == 0
    assert "2 to do, 2 of them done already" in capsys.readouterr().out
    assert all(len((run / "calls.txt").read_text().splitlines()) == 1 for run in (world / "runs").iterdir())


def test_plan_status_and_gather_say_the_same(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.plan(PlanOptions(rows="3I")) == 0
    shown = capsys.readouterr().out
    assert "1 scorings of 1 runs, 0 done, 1 missing" in shown and "needs 3K" not in " ".join(shown.split())
    assert not (world / "runs").exists()  # planning starts nothing
    assert cli.status(ResultsOptions()) == 0 and cli.gather(ResultsOptions()) == 0
    assert "not run" in capsys.readouterr().out


def test_a_plan_without_data_is_shown_and_not_written(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(config: dict) -> str:
        raise ValueError("data/embedded: no store there")

    monkeypatch.setattr(sys.modules["experiments.runs.data"], "prepare_data", absent)
    (world / "lab.yaml").write_text("nodes: 1\ndevices_per_node: 8\ntime: 5\n")
    assert cli.plan(PlanOptions(rows="3A")) == 0
    assert "not there yet: data/embedded: no store there" in capsys.readouterr().out
    assert commands.submit("lab.yaml", PlanOptions(rows="3A"), dry_run=True) == 0
    text = capsys.readouterr().out
    assert "# not there yet: data/embedded: no store there" in text and "#SBATCH --array=0-0" in text
    with pytest.raises(ValueError, match="no store there"):
        commands.submit("lab.yaml", PlanOptions(rows="3A"))
    assert sorted(path.name for path in world.iterdir()) == ["ablations.yaml", "experiments", "lab.yaml"]


def test_retry_starts_what_failed_and_nothing_else(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "run_command", lambda *_: fake_command)
    cli.run(PlanOptions(rows="3A,3G,8C"))
    assert commands.retry(ResultsOptions(), JudgeOptions()) == 0 and "nothing has failed" in capsys.readouterr().out
    failed = next(world.glob("runs/AudioMNTP-*"))
    metrics = next(failed.glob("evals/*/metrics.json"))
    metrics.unlink()
    metrics.with_name("failure.json").write_text('{"reason": "boom"}')
    assert (
        commands.retry(ResultsOptions(), JudgeOptions(), dry_run=True) == 0
        and "3G" in capsys.readouterr().out
        and not metrics.exists()
    )
    assert commands.retry(ResultsOptions(), JudgeOptions()) == 0 and "[3G = 8C] done" in capsys.readouterr().out
    assert {len((run / "calls.txt").read_text().split()) for run in (world / "runs").iterdir()} == {1, 2}


def test_another_scale_never_touches_the_default_ones_tables(world: Path) -> None:
    cli.run(PlanOptions(rows="3A"))
    before = (world / "results/table3.csv").read_bytes()
    cli.run(PlanOptions(rows="3A", scale="smoke"))
    assert (world / "results/table3.csv").read_bytes() == before
    assert read_plan(world / "results/smoke").scale == "smoke"


def test_the_exit_code_is_1_if_anything_that_was_asked_for_is_missing(tmp_path: Path) -> None:
    write_plan(Plan("m", "micro", "embedded", {}, {}, ()), tmp_path)
    jobs = [fake_job(tmp_path, "a", mode="crash"), fake_job(tmp_path, "b")]
    with (tmp_path / "out.txt").open("w") as out:
        assert cli.execute(jobs, fake_command, tmp_path, Console(file=out)) == 1
    assert "a step went wrong" in (tmp_path / "out.txt").read_text() and calls(jobs[1]) == 1


@pytest.mark.parametrize("text", ["", "a", "0,", "1,1", "-1", "1.5", "01,1"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="seeds: expected distinct whole numbers"):
        parse_seeds(text)


def test_seeds() -> None:
    assert parse_seeds("0, 2,1") == [0, 2, 1]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("runs.state", {"torch", "lightning", "pandas", "jsonargparse"}),
        ("commands.ablate", {"torch", "lightning", "pandas", "jsonargparse"}),
        ("ablate.matrix.load", {"torch", "lightning", "pandas"}),
        ("ablate.matrix.schedules", {"torch", "lightning", "pandas"}),
        ("ablate.results.gather", {"torch", "lightning", "matplotlib.figure"}),
        ("ablate.report.html", {"torch", "lightning", "matplotlib.figure"}),
    ],
)
def test_looking_at_results_imports_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import sys, experiments.{module}; loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_a_changed_row_is_stale_until_it_is_run_again(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def planned() -> str:
        assert cli.plan(PlanOptions(rows="4:6")) == 0
        return " ".join(capsys.readouterr().out.split())

    matrix = world / "ablations.yaml"
    assert cli.run(PlanOptions(rows="4:6")) == 0
    old = next(cell for cell in read_plan(world / "results").cells if cell.label == "4:6")
    capsys.readouterr()
    assert "1 scorings of 1 runs, 1 done" in planned()
    matrix.write_text(matrix.read_text().replace("head.init_args.depth: 6", "head.init_args.depth: 7"))
    assert "0 done, 1 missing" in planned(), "the fake run leaves no weights: nothing is known of it"
    matrix.write_text(matrix.read_text().replace("head.init_args.depth: 7", "head.init_args.depth: 6"))
    assert "1 done" in planned()
    (final := Path(old.run_dir) / "checkpoints" / "final.ckpt").parent.mkdir()
    final.touch()
    matrix.write_text(matrix.read_text().replace("head.init_args.depth: 6", "head.init_args.depth: 7"))
    for _ in range(2):  # planning twice doesn't forget
        shown = planned()
        assert "0 done, 1 stale" in shown and "an earlier plan had" in shown
        assert Path(read_cell("4:6").earlier).is_relative_to(old.run_dir)
    assert cli.run(PlanOptions(rows="4:6")) == 0
    assert "1 done" in planned()
    (Path(read_cell("4:6").run_dir) / "evals").rename(world / "gone")
    (final := Path(read_cell("4:6").run_dir) / "checkpoints" / "final.ckpt").parent.mkdir()
    final.touch()
    assert "0 done, 1 cached" in planned()


def read_cell(label: str) -> PlannedCell:
    return next(cell for cell in read_plan(Path("results")).cells if cell.label == label)


def test_an_interrupt_still_gathers_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plan(Plan("m", "micro", "embedded", {}, {}, ()), tmp_path)
    done, hanging = JobView(fake_job(tmp_path, "a"), DONE, {}), JobView(fake_job(tmp_path, "b"), INTERRUPTED, {})
    hanging.progress, hanging.elapsed = {"phase": "training", "step": 300, "max_steps": 400}, 66.0

    def interrupted(*_: object, **__: object) -> list[JobView]:
        raise InterruptedRunError([done, hanging], 130)

    monkeypatch.setattr(execute, "run_jobs", interrupted)
    with (tmp_path / "out.txt").open("w") as out:
        assert cli.execute([], fake_command, tmp_path, Console(file=out)) == 130
    shown = " ".join((tmp_path / "out.txt").read_text().split())
    assert "1 of 2 are done and kept" in shown and "b was interrupted at training 300/400" in shown
    assert (tmp_path / "results.csv").is_file()

"""What callbacks leave on disk: metrics lines, progress, checkpoints."""

import json
from pathlib import Path

import pytest
import torch

from callbacks import AtomicCheckpointIO, JSONLLogger, ProgressFile


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_run_has_the_lines_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    logger = JSONLLogger(whole)
    for step in range(10):
        logger.log_metrics({"loss": 1 / (step + 1), "epoch": 0.0}, step)
    first = JSONLLogger(broken)
    for step in range(7):
        first.log_metrics({"loss": 1 / (step + 1)}, step)
    broken.write_text(broken.read_text() + '{"step": 7, "lo')  # killed while writing
    second = JSONLLogger(broken)
    for step in range(5, 10):  # the newest checkpoint was at step 5
        second.log_metrics({"loss": 1 / (step + 1)}, step)
    assert broken.read_text() == whole.read_text()
    assert [line["step"] for line in lines(whole)] == list(range(10))
    assert "epoch" not in lines(whole)[0]


def test_progress_says_the_first_and_last_step_and_is_not_written_each_time(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    progress = ProgressFile(path, "abc")
    progress.write("training", 0, 100)
    progress.write("training", 1, 100, 0.5)  # within the same second
    assert json.loads(path.read_text())["step"] == 0
    progress.write("training", 100, 100, 0.25)
    assert json.loads(path.read_text()) == {
        "protocol": "abc",
        "phase": "training",
        "step": 100,
        "max_steps": 100,
        "loss": 0.25,
        "time": pytest.approx(json.loads(path.read_text())["time"]),
    }


def test_seconds_of_training_survive_a_resume() -> None:
    progress = ProgressFile(Path("unused"), "abc")
    progress.train_seconds = 12.5
    again = ProgressFile(Path("unused"), "abc")
    again.load_state_dict(progress.state_dict())
    assert again.train_seconds == 12.5


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1, "weight": torch.ones(3)}, path)

    class Unwritable:
        def __reduce__(self) -> tuple[object, ...]:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        io.save_checkpoint({"step": 2, "weight": Unwritable()}, path)
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]

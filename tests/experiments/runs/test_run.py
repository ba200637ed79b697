"""One cell from corpus to scores: killed and started again it ends as the uninterrupted one, bit for bit."""

import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from experiments.runs.record import EXIT_HELD
from experiments.runs.stop import EXIT_STOPPED
from experiments.scoring.intervals import REPLICATES, interval, read_replicates
from mntp.io.json_lines import read_json
from tests.experiments.runs.support import PROTOCOL, Shared, finish, start, write_run


def nameless(metrics: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """What was measured, without the run's name and the hash over it."""
    protocol = metrics["protocol"]
    assert protocol["generation"]["run"] == run_dir.name and metrics["protocol_hash"]
    generation = {key: value for key, value in protocol["generation"].items() if key != "run"}
    rest = {key: value for key, value in metrics.items() if key != "protocol_hash"}
    return {**rest, "protocol": {**protocol, "generation": generation}}


@pytest.mark.slow
def test_a_killed_cell_ends_as_the_uninterrupted_one(tmp_path: Path, shared: Shared) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for run_dir in (whole, killed):
        write_run(run_dir, shared, "audio_mntp")
    metrics = finish(whole, shared)
    assert {"fd_judge", "kl_judge", "is_judge", "text_judge", "ntp_loss", "num_clips"} <= set(metrics)
    assert metrics["num_clips"] == 4

    child = start(killed, shared)
    while not (killed / "checkpoints" / "last.ckpt").is_file():
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not (killed / "checkpoints" / "final.ckpt").exists()
    step = torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < step < 40

    assert nameless(finish(killed, shared), killed) == nameless(metrics, whole)
    first, second = (torch.load(run / "checkpoints" / "final.ckpt", weights_only=True) for run in (whole, killed))
    assert all(torch.equal(tensor, second["state_dict"][name]) for name, tensor in first["state_dict"].items())
    lines, kept = ((run / "metrics.jsonl").read_text().splitlines() for run in (whole, killed))
    assert [line for line in lines if line in kept] == kept
    assert len(lines) - len(kept) <= 1  # killed between a checkpoint and the line of its step
    wavs = sorted((whole / "evals" / PROTOCOL / "wav").iterdir())
    assert len(wavs) == 4
    assert all(w.read_bytes() == (killed / "evals" / PROTOCOL / "wav" / w.name).read_bytes() for w in wavs)

    # The file of held-out losses gives what was logged, and its clips' pseudo-values the interval.
    held_out = load_file(whole / "held_out.safetensors")
    logged = json.loads((whole / "run.json").read_text())["held_out"]
    record = json.loads((whole / "run.json").read_text())
    assert record["held_out_metric"] == {"name": "ntp_loss", "digits": 4, "better": -1}
    for name in ("ntp_loss", "ntp_loss_sound"):
        totals, counts = held_out[name]
        assert (totals.sum() / counts.sum()).item() == pytest.approx(logged[name], rel=1e-6) == metrics[name]
    assert held_out["rows"].tolist() == sorted(held_out["rows"].tolist())
    assert len(held_out["rows"]) == metrics["num_held_out_clips"] == 4
    totals, counts = held_out["ntp_loss"].double()
    left_out = [((totals.sum() - totals[i]) / (counts.sum() - counts[i])).item() for i in range(4)]
    expected = [metrics["ntp_loss"] + 3 * (sum(left_out) / 4 - value) for value in left_out]
    replicates = read_replicates(whole / "evals" / PROTOCOL / REPLICATES)["ntp_loss"]
    assert replicates == pytest.approx(expected)
    assert metrics["intervals"]["ntp_loss"] == pytest.approx(interval(metrics["ntp_loss"], replicates))

    # Killed between the final checkpoint and that file: it is taken again.
    (killed / "held_out.safetensors").unlink()
    (killed / "evals" / PROTOCOL / "metrics.json").unlink()
    assert nameless(finish(killed, shared), killed) == nameless(metrics, whole)
    assert (killed / "held_out.safetensors").read_bytes() == (whole / "held_out.safetensors").read_bytes()

    # Killed behind the last step, and while sampling: the averaged weights and the same batches are taken again.
    scoring = killed / "evals" / PROTOCOL
    (killed / "checkpoints" / "final.ckpt").unlink()
    (scoring / "metrics.json").unlink()
    (scoring / "wav" / wavs[0].name).unlink()
    assert nameless(finish(killed, shared), killed) == nameless(metrics, whole)
    assert (scoring / "wav" / wavs[0].name).read_bytes() == wavs[0].read_bytes()

    # Run again: nothing is done twice.
    before = (whole / "checkpoints" / "final.ckpt").stat().st_mtime_ns
    assert finish(whole, shared) == metrics
    assert (whole / "checkpoints" / "final.ckpt").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("system", ["audio_ntp", "audio_mar"])
def test_the_other_systems_run_from_end_to_end(tmp_path: Path, shared: Shared, system: str) -> None:
    write_run(tmp_path / "run", shared, system)
    metrics = finish(tmp_path / "run", shared)
    assert ("ntp_loss" in metrics) == (system == "audio_ntp")
    assert ("masked_loss" in metrics) == (system == "audio_mar")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "trained"
    assert record["train_seconds"] > 0
    assert record["gpu_seconds"] is None or torch.cuda.is_available()


@pytest.mark.slow
def test_two_processes_are_one_cell(tmp_path: Path, shared: Shared) -> None:
    """The second rank is no second run: it takes no lock, and the first alone scores."""
    write_run(tmp_path / "run", shared, "audio_mntp")
    path = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["trainer"] |= {"devices": 2, "accelerator": "cpu", "max_steps": 8}
    path.write_text(yaml.safe_dump(config))
    metrics = finish(tmp_path / "run", shared)
    assert metrics["num_clips"] == 4 and metrics["num_held_out_clips"] == 4
    assert json.loads((tmp_path / "run" / "run.json").read_text())["clips_per_step"] == 2 * 8
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "train/loss" in line]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_cell_that_is_asked_to_stop_saves_its_place(tmp_path: Path, shared: Shared) -> None:
    run_dir = tmp_path / "run"
    write_run(run_dir, shared, "audio_mntp")
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"].endswith("LastCheckpoint"):
            callback["init_args"] = {"seconds": 1000.0}
    config["trainer"]["max_steps"] = 100_000
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    child = start(run_dir, shared)
    while read_json(run_dir / "progress.json").get("step", 0) < 2:
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == EXIT_STOPPED, output
    step = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert step >= read_json(run_dir / "progress.json")["step"] >= 2


@pytest.mark.slow
def test_validate_test_and_predict_from_a_checkpoint(tmp_path: Path, shared: Shared) -> None:
    run_dir = tmp_path / "run"
    write_run(run_dir, shared, "audio_mntp")
    finish(run_dir, shared)
    words = ["--config", str(run_dir / "config.yaml"), "--ckpt_path", str(run_dir / "checkpoints" / "final.ckpt")]
    for command, shows in (("validate", "val/ntp_loss"), ("test", "test/ntp_loss_sound"), ("predict", "")):
        folder = tmp_path / command
        more = ["--trainer.default_root_dir", str(folder), "--trainer.logger", "false"]
        line = [sys.executable, "-m", "experiments", command, *words, *more]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert shows in done.stdout
    assert len(list((tmp_path / "predict" / "predictions").glob("*.wav"))) == 4


@pytest.mark.slow
def test_a_cell_that_is_held_says_by_whom(tmp_path: Path, shared: Shared) -> None:
    run_dir = tmp_path / "run"
    write_run(run_dir, shared, "audio_mntp")
    with (run_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 1 on elsewhere\n")
        lock.flush()
        child = start(run_dir, shared)
        output, _ = child.communicate(timeout=120)
    assert child.returncode == EXIT_HELD
    assert f"{run_dir}: held by process 1 on elsewhere" in output


@pytest.mark.slow
def test_a_protocol_of_other_data_is_refused(tmp_path: Path, shared: Shared) -> None:
    run_dir = tmp_path / "run"
    write_run(run_dir, shared, "audio_mntp", source="reconstruction", store="0" * 12)
    child = start(run_dir, shared)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 2
    assert f"the protocol asks for store 000000000000, found {shared[1]['store']}: plan again" in output
    assert json.loads((run_dir / "run.json").read_text())["state"] == "failed"

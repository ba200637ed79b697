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

from experiments.ablate.matrix import Setting, overlaid
from experiments.cli import load_config, resolve
from experiments.run_record import EXIT_HELD
from experiments.shared import prepare

MICRO = Path(__file__).parents[2] / "experiments" / "configs" / "micro"
TINY = {
    "model.init_args.backbone.init_args.dim": 16,
    "model.init_args.backbone.init_args.depth": 2,
    "model.init_args.backbone.init_args.num_heads": 2,
    "model.init_args.backbone.init_args.dropout": 0.1,  # its draws must resume, too
    "model.init_args.head.init_args.width": 16,
    "model.init_args.num_tokens": 16,
    "model.init_args.decoding.num_diffusion_steps": 3,
    "data.corpus": {"num_train": 88, "num_val": 4, "num_test": 4, "seconds": 0.64},
    "data.batch_size": 8,
    "trainer.max_steps": 40,
    "trainer.val_check_interval": 20,
    "trainer.log_every_n_steps": 1,
}
PROTOCOL = "abc"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Folder with the prepared corpus and judge, and their fingerprints."""
    folder = tmp_path_factory.mktemp("shared")
    return folder, prepare(tiny_config(folder), folder)


def tiny_config(folder: Path, system: str = "audio_mntp", checkpoint_every: int = 5) -> dict[str, Any]:
    overlay = {**TINY, "data.store": str(folder / "store")}
    config = overlaid(load_config(MICRO / f"{system}.yaml"), [Setting(k, v, "test") for k, v in overlay.items()])
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"].endswith("ModelCheckpoint"):
            callback["init_args"].pop("train_time_interval")
            callback["init_args"]["every_n_train_steps"] = checkpoint_every
    return resolve(config)


def write_run(run_dir: Path, shared: tuple[Path, dict[str, str]], system: str, **rules: Any) -> None:
    config = tiny_config(shared[0], system)
    scoring = run_dir / "evals" / PROTOCOL
    scoring.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    decoding = config["model"]["init_args"]["decoding"]
    protocol = {"source": "model", "split": "test", "num_clips": 4, "seed": 0, "batch_size": 3, "decoding": decoding}
    (scoring / "protocol.json").write_text(json.dumps({**protocol, **shared[1], **rules}))


def start(run_dir: Path, shared: tuple[Path, dict[str, str]]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "experiments.run", str(run_dir), "--protocol", PROTOCOL, "--judges", str(shared[0])]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run_dir: Path, shared: tuple[Path, dict[str, str]]) -> dict[str, Any]:
    child = start(run_dir, shared)
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0, output
    return json.loads((run_dir / "evals" / PROTOCOL / "metrics.json").read_text())


@pytest.mark.slow
def test_a_killed_cell_ends_as_the_uninterrupted_one(tmp_path: Path, shared: tuple[Path, dict[str, str]]) -> None:
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

    assert finish(killed, shared) == metrics
    first, second = (torch.load(run / "checkpoints" / "final.ckpt", weights_only=True) for run in (whole, killed))
    assert all(torch.equal(tensor, second["state_dict"][name]) for name, tensor in first["state_dict"].items())
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    wavs = sorted((whole / "evals" / PROTOCOL / "wav").iterdir())
    assert len(wavs) == 4
    assert all(w.read_bytes() == (killed / "evals" / PROTOCOL / "wav" / w.name).read_bytes() for w in wavs)

    # Run again: nothing is done twice.
    before = (whole / "checkpoints" / "final.ckpt").stat().st_mtime_ns
    assert finish(whole, shared) == metrics
    assert (whole / "checkpoints" / "final.ckpt").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("system", ["audio_ntp", "audio_mar"])
def test_the_other_systems_run_from_end_to_end(
    tmp_path: Path, shared: tuple[Path, dict[str, str]], system: str
) -> None:
    write_run(tmp_path / "run", shared, system)
    metrics = finish(tmp_path / "run", shared)
    assert ("ntp_loss" in metrics) == (system == "audio_ntp")
    assert ("masked_loss" in metrics) == (system == "audio_mar")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "trained"
    assert record["train_seconds"] > 0
    assert record["gpu_seconds"] is None or torch.cuda.is_available()


@pytest.mark.slow
def test_a_cell_that_is_held_says_by_whom(tmp_path: Path, shared: tuple[Path, dict[str, str]]) -> None:
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
def test_a_protocol_of_other_data_is_refused(tmp_path: Path, shared: tuple[Path, dict[str, str]]) -> None:
    run_dir = tmp_path / "run"
    write_run(run_dir, shared, "audio_mntp", source="reconstruction", store="0" * 12)
    child = start(run_dir, shared)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 2
    assert f"the protocol asks for store 000000000000, found {shared[1]['store']}: plan again" in output
    assert json.loads((run_dir / "run.json").read_text())["state"] == "failed"

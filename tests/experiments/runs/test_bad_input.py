"""What goes wrong while training or afterwards: exit code, one line that names the file, and nothing lost.

Bad audio, tables and stores are in test_prepare, misspelt configs in test_cli.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from tests.disks import disk_of
from tests.experiments.runs.support import Shared, finish, start, tiny_config, write_run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KB: enough for one checkpoint, not for two."""
    with disk_of("600k", tmp_path / "disk") as folder:
        yield folder


@pytest.mark.slow
def test_a_full_disk_names_the_file_and_keeps_the_last_checkpoint(small_disk: Path, shared: Shared) -> None:
    run_dir = small_disk / "run"
    write_run(run_dir, shared, "audio_mntp")
    child = start(run_dir, shared)
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 2, output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "No space left on device" in last
    assert str(run_dir) in last
    assert "Traceback" not in output
    kept = run_dir / "checkpoints" / "last.ckpt"
    assert torch.load(kept, weights_only=True)["global_step"] > 0
    assert not list(run_dir.rglob("*.tmp"))


@pytest.mark.slow
def test_ctrl_c_keeps_the_last_checkpoint_and_the_run_goes_on(tmp_path: Path, shared: Shared) -> None:
    run_dir = tmp_path / "run"
    write_run(run_dir, shared, "audio_mntp")
    child = start(run_dir, shared)
    while not (run_dir / "checkpoints" / "last.ckpt").is_file():
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=120)
    assert child.returncode not in (0, 2)
    assert "Traceback" not in output
    assert torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 0
    assert finish(run_dir, shared)["num_clips"] == 4


def lightning(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_a_checkpoint_of_another_tokenizer_and_a_damaged_shard(tmp_path: Path, shared: Shared) -> None:
    run_dir = tmp_path / "run"
    write_run(run_dir, shared, "audio_mntp")
    finish(run_dir, shared)
    config = tiny_config(shared[0])
    config["data"]["store"] = str(tmp_path / "other")
    config["data"]["corpus"]["seed"] = 1  # another corpus: another fit of the tokenizer
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    checkpoint = run_dir / "checkpoints" / "final.ckpt"
    words = ("--config", path, "--trainer.default_root_dir", tmp_path, "--trainer.logger", "false")
    done = lightning("validate", *words, "--ckpt_path", checkpoint)
    assert done.returncode == 2
    assert "error: the model was trained on tokens of MelTokenizer" in done.stderr
    assert "use the store that the model was trained on" in done.stderr
    assert "Traceback" not in done.stderr

    shard = tmp_path / "other" / "shard-00000.safetensors"
    content = shard.read_bytes()
    altered = bytes([*content[:-1], content[-1] ^ 1])
    for damaged in (altered, content[: len(content) // 2]):
        shard.write_bytes(damaged)
        done = lightning("fit", *words)
        assert done.returncode == 2
        assert str(shard) in done.stderr
        assert "Traceback" not in done.stderr
        assert shard.read_bytes() == damaged  # it is for the user to prepare again

    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(checkpoint.read_bytes()[:20_000])
    shard.write_bytes(content)
    done = lightning("validate", *words, "--ckpt_path", cut)
    assert done.returncode == 2
    assert f"error: {cut}: can't be read as a checkpoint" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"PK nothing")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("broken.ckpt", "not a checkpoint of a system"),
        ("nowhere", "no such folder"),
        ("empty", "no checkpoint there"),
    ):
        code = f"import sys; sys.argv = ['mntp', 'generate', 'a tone', '--ckpt', {str(tmp_path / name)!r}]"
        words = [sys.executable, "-c", f"{code}; from experiments.main import main; main()"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2
        assert message in done.stderr
        assert str(tmp_path / name) in done.stderr
        assert "Traceback" not in done.stderr

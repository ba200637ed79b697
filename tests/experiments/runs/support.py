"""Tiny runs for tests: a corpus of 0.64 s scenes, a model of a few thousand parameters, 40 steps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from experiments.ablate.matrix.overlay import Setting, overlaid
from experiments.config.resolve import load_config, resolve

MICRO = Path(__file__).parents[3] / "experiments" / "configs" / "micro"
TINY = {
    "model.init_args.backbone.init_args.dim": 16,
    "model.init_args.backbone.init_args.depth": 2,
    "model.init_args.backbone.init_args.num_heads": 2,
    "model.init_args.backbone.init_args.dropout": 0.1,  # its draws must resume, too
    "model.init_args.head.init_args.width": 16,
    "model.init_args.num_tokens": 16,
    "model.init_args.decoding.sampling.num_steps": 3,
    "data.corpus": {"num_train": 88, "num_val": 4, "num_test": 4, "seconds": 0.64},
    "data.batch_size": 8,
    "trainer.max_steps": 40,
    "trainer.val_check_interval": 20,
    "trainer.log_every_n_steps": 1,
}
PROTOCOL = "abc"
Shared = tuple[Path, dict[str, str]]  # folder of the tiny store and judge, and their fingerprints


def tiny_config(folder: Path, system: str = "audio_mntp", checkpoint_seconds: float = 0.001) -> dict[str, Any]:
    overlay = {**TINY, "data.store": str(folder / "store")}
    config = overlaid(load_config(MICRO / f"{system}.yaml"), [Setting(k, v, "test") for k, v in overlay.items()])
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"].endswith("LastCheckpoint"):
            callback["init_args"] = {"seconds": checkpoint_seconds}  # after every step
    return resolve(config)


def write_run(run_dir: Path, shared: Shared, system: str, source: str = "model", **rules: Any) -> None:
    config = tiny_config(shared[0], system)
    scoring_folder = run_dir / "evals" / PROTOCOL
    scoring_folder.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    decoding = config["model"]["init_args"]["decoding"]
    generation = {"source": source, "seed": 0, "batch_size": 3, "decoding": decoding}
    scoring = {"kind": "embedded", "split": "test", "num_clips": 4, **shared[1], **rules}
    (scoring_folder / "protocol.json").write_text(json.dumps({"scoring": scoring, "generation": generation}))


def start(run_dir: Path, shared: Shared) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-m",
        "experiments.runs.run",
        str(run_dir),
        "--protocol",
        PROTOCOL,
        "--judges",
        str(shared[0]),
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run_dir: Path, shared: Shared) -> dict[str, Any]:
    child = start(run_dir, shared)
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0, output
    return json.loads((run_dir / "evals" / PROTOCOL / "metrics.json").read_text())

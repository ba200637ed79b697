"""A small world for the runner's tests: bare base configs, a resolver, jobs of the fake run."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.matrix.schema import Matrix
from experiments.ablate.plan.inputs import Inputs
from experiments.ablate.plan.job import Job

REPOSITORY = Path(__file__).parents[3]
FAKE_RUN = Path(__file__).parent / "fake_run.py"
SHARED = {"store": "5708e0000000", "judge": "1d9e00000000"}

PROTOCOL = {"scoring": {"num_clips": 4}, "generation": {"source": "model"}}
ARGUMENTS: dict[str, Any] = {
    "decoding": {"sampling": {"num_steps": 100}},
    "seed": 0,
    "streams": {"pooled": 1, "words": 1},
    "head": {"class_path": "mntp.heads.DiffusionHead", "init_args": {"width": 8, "depth": 2, "num_noise_draws": 1}},
}
BASES = {
    "audio_ntp": "mntp.systems.AudioNTP",
    "audio_mntp": "mntp.systems.AudioMNTP",
    "audio_mar": "mntp.systems.AudioMAR",
}
COMMON = {"seed", "streams", "mask_ratio", "decoding", "backbone", "head", "optimisation"}
KNOWN = {
    "AudioNTP": COMMON | {"masking_mode"},
    "AudioMNTP": COMMON | {"target_position_embedding", "shuffled"},
    "AudioMAR": COMMON,
}


def write_world(folder: Path, text: str | None = None) -> Path:
    """The repository's matrix (or `text`) over bare base configs; returns the matrix file's path."""
    configs = folder / "experiments" / "configs" / "micro"
    configs.mkdir(parents=True)
    for name, model in BASES.items():
        lines = [
            "trainer: {max_steps: 400}",
            "data: {store: data/embedded, num_workers: 0}",
            f"model: {json.dumps({'class_path': model, 'init_args': ARGUMENTS})}",
        ]
        (configs / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    path = folder / "ablations.yaml"
    path.write_text((REPOSITORY / "ablations.yaml").read_text() if text is None else text)
    return path


def load_world(folder: Path, text: str | None = None) -> Matrix:
    return load_matrix(write_world(folder, text))


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Refuse unknown model keys, fill in two defaults."""
    config = copy.deepcopy(config)
    model = config["model"]
    for key in model["init_args"]:
        if key not in KNOWN[model["class_path"].rpartition(".")[2]]:
            raise ValueError(f"Key 'model.init_args.{key}' is not expected")
    model["init_args"]["decoding"].setdefault("guidance", 7.0)
    config["trainer"].setdefault("logger", False)
    config.setdefault("init", None)
    return config


def prepare_data(config: dict[str, Any]) -> str:
    return SHARED["store"]


def inputs(store: Callable[[dict[str, Any]], str] = prepare_data) -> Inputs:
    """Stand-ins for the fingerprints of data, judge and files of weights."""
    return Inputs(store, lambda config: SHARED["judge"], lambda file: f"of {file}")


def fake_job(runs: Path, name: str, mode: str = "ok", steps: int = 2, seconds: float = 0.0) -> Job:
    config = {"trainer": {"max_steps": steps}, "fake": {"mode": mode, "steps": steps, "seconds": seconds}}
    return Job((name,), runs / f"Fake-{name}-s0", config, PROTOCOL, f"hash{name}")


def fake_command(job: Job) -> list[str]:
    return [sys.executable, str(FAKE_RUN), str(job.run_dir), job.protocol_hash]


def calls(job: Job) -> int:
    """How often the job's process was started."""
    path = job.run_dir / "calls.txt"
    return len(path.read_text().splitlines()) if path.is_file() else 0

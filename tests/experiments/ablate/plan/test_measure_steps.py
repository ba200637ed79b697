"""A few timed steps: of the config that is asked about, and nothing of them stays."""

import time
from pathlib import Path

import pytest

from experiments.ablate.plan.measure_steps import NUM_STEPS, measure_steps
from tests.experiments.runs.support import Shared, tiny_config


@pytest.mark.filterwarnings("ignore")  # advice on a machine with SLURM, and on small data
def test_steps_are_timed_and_nothing_is_kept(tmp_path: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_config(shared[0])
    config["trainer"] |= {"devices": 4, "num_nodes": 2, "accelerator": "cpu"}  # more than there are here
    config["init"] = {"class_path": "mntp.initial_weights.TrainedSystem", "init_args": {"path": "not/there.ckpt"}}
    began = time.monotonic()
    cost = measure_steps(config)
    assert 0 < NUM_STEPS * cost.seconds < time.monotonic() - began
    assert cost.gpus == 0 and cost.source == "measured here over 5 steps"
    assert not list(tmp_path.iterdir())
    assert config["trainer"]["devices"] == 4 and config["init"] is not None, "what it was given is as it was"

"""What a plan costs: finished runs tell it, one of each other shape is measured, and a cap warns."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.ablate.plan.cost import Prediction, StepCost, predict_cost, shape
from experiments.ablate.plan.job import Job
from tests.experiments.ablate.support import ARGUMENTS, PROTOCOL

CONFIG: dict[str, Any] = {
    "model": {"class_path": "mntp.systems.AudioMNTP", "init_args": {**ARGUMENTS, "decoding": {"scale": 3.0}}},
    "data": {"store": "s", "seed": 0, "batch_size": 32},
    "trainer": {"max_steps": 400, "devices": 1, "precision": None},
}


def job(runs: Path, name: str, seed: int = 0, protocol: str = "p0", **changes: Any) -> Job:
    config = copy.deepcopy(CONFIG)
    config["model"]["init_args"]["seed"] = config["data"]["seed"] = seed
    for key, value in changes.items():
        section = {"max_steps": "trainer", "devices": "trainer", "batch_size": "data"}.get(key)
        (config[section] if section else config["model"]["init_args"])[key] = value
    return Job((f"{name} s{seed} {protocol}",), runs / f"Fake-{name}-s{seed}", config, PROTOCOL, protocol)


def train(item: Job, **record: Any) -> None:
    (item.run_dir / "checkpoints").mkdir(parents=True)
    (item.run_dir / "checkpoints" / "final.ckpt").touch()
    (item.run_dir / "run.json").write_text(json.dumps(record))


def score(item: Job, sample: float, score: float) -> None:
    folder = item.run_dir / "evals" / item.protocol_hash
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"num_clips": 4}')
    (folder / "score.json").write_text(json.dumps({"sample_seconds": sample, "score_seconds": score}))


class Measure:
    """Counts what it is asked to measure."""

    def __init__(self, seconds: float = 2.0, gpus: int = 0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.cost = StepCost(seconds, gpus, "measured")

    def __call__(self, config: dict[str, Any]) -> StepCost:
        self.asked.append(config)
        return self.cost


def test_each_shape_is_measured_once(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "a", seed) for seed in range(3)]
    jobs += [job(tmp_path, "a", 0, "p1"), job(tmp_path, "b", optimisation={"lr": 1}), job(tmp_path, "c", batch_size=64)]
    jobs += [job(tmp_path, "d", max_steps=100), job(tmp_path, "untrained", max_steps=0)]
    measure = Measure(0.5)
    prediction = predict_cost(jobs, measure)
    assert len(measure.asked) == 2 and [config["data"]["batch_size"] for config in measure.asked] == [32, 64]
    # a's three seeds, b and d have one shape; a scoring more trains nothing more
    assert [(found.num_runs, found.num_steps) for found in prediction.shapes] == [(5, 4 * 400 + 100), (1, 400)]
    assert prediction.wall_seconds == 0.5 * 2100 and prediction.hours == 0.5 * 2100 / 3600
    assert prediction.unit == "CPU-hours" and prediction.num_unknown == len(jobs)


def test_finished_runs_tell_their_shapes_cost_and_arent_counted(tmp_path: Path) -> None:
    done, seed, scored = (job(tmp_path, "a", seed) for seed in range(3))
    train(done, train_seconds=100.0, gpu_seconds=800.0)
    score(done, 30.0, 10.0)
    measure = Measure()
    prediction = predict_cost([done, seed, scored], measure)
    assert measure.asked == []
    assert prediction.shapes[0].step == StepCost(0.25, 8, "from Fake-a-s0")
    assert prediction.wall_seconds == 2 * 100 + 2 * 40 and prediction.num_unknown == 0
    assert prediction.hours == pytest.approx((200 * 8 + 80) / 3600) and prediction.unit == "GPU-hours"


def test_a_run_of_another_seed_that_isnt_planned_tells_it_too(tmp_path: Path) -> None:
    train(job(tmp_path, "a", 7), train_seconds=40.0, gpu_seconds=None)
    prediction = predict_cost([job(tmp_path, "a", 0)], Measure())
    assert prediction.shapes[0].step == StepCost(0.1, 0, "from Fake-a-s7")


def test_a_run_that_isnt_finished_tells_nothing(tmp_path: Path) -> None:
    unfinished = job(tmp_path, "a", 1)
    unfinished.run_dir.mkdir()
    (unfinished.run_dir / "run.json").write_text('{"train_seconds": 1.0}')
    measure = Measure()
    predict_cost([job(tmp_path, "a", 0), unfinished], measure)
    assert len(measure.asked) == 1


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"seed": 3}, True),
        ({"max_steps": 9}, True),
        ({"decoding": {"scale": 7.0}}, True),
        ({"mask_ratio": {"class_path": "Fixed"}}, False),
        ({"devices": 8}, False),
        ({"head": {"class_path": "mntp.heads.DiffusionHead", "init_args": {"width": 16}}}, False),
    ],
)
def test_a_shape_is_what_a_step_takes(tmp_path: Path, changes: dict[str, Any], same: bool) -> None:
    assert (shape(job(tmp_path, "a", **changes).config) == shape(CONFIG)) == same


def test_the_prediction_reads_well_and_warns_above_a_cap(tmp_path: Path) -> None:
    prediction = predict_cost([job(tmp_path, "a"), job(tmp_path, "b")], Measure(9.0, gpus=2))
    lines = prediction.lines(cap_hours=3.9)
    assert lines[0].startswith("2:00:00: a s0 p0, b s0 p0: 2 runs, 800 steps of 9 s (measured)")
    assert "predicted: 4.00 GPU-hours, 2:00:00 one by one" in lines
    assert lines[-1] == "warning: 4.00 GPU-hours are above the cap of 3.9"
    assert any("not counted: sampling and scoring of 2 cells" in line for line in lines)
    assert not any("warning" in line for line in (*prediction.lines(4.0), *prediction.lines()))
    assert Prediction(()).lines() == ["predicted: 0.00 CPU-hours, 0 s one by one"]

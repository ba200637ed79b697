"""What a plan costs: seconds of each training, from finished runs of the same shape or from a few measured steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.ablate.plan.job import Job
from experiments.config.nodes import look_up
from experiments.runs.record import final_checkpoint
from experiments.runs.state import read_state, seconds
from mntp.io.fingerprint import hash_json

# What a training step's time depends on; neither the length of the training nor the optimiser's numbers are.
_NOT_IN_SHAPE = ("seed", "decoding", "optimisation")
_TRAINER_SHAPE = ("accelerator", "devices", "num_nodes", "strategy", "precision", "accumulate_grad_batches")


@dataclass(frozen=True)
class StepCost:
    """What one training step takes.

    Attributes:
        seconds: of wall time.
        gpus: that work at it; 0 on a CPU.
        source: where it is known from.
    """

    seconds: float
    gpus: int
    source: str


@dataclass(frozen=True)
class ShapeCost:
    """The trainings of one shape that are left.

    Attributes:
        labels: of the cells.
        num_runs: that are to be trained.
        num_steps: of all of them together.
        step: the cost of a step.
    """

    labels: tuple[str, ...]
    num_runs: int
    num_steps: int
    step: StepCost

    @property
    def wall_seconds(self) -> float:
        """Of all of them, one after another."""
        return self.num_steps * self.step.seconds


@dataclass(frozen=True)
class Prediction:
    """What is left of a plan to pay.

    Attributes:
        shapes: trainings by shape.
        sampling_seconds: of the scorings that are left and whose time is known from one like it.
        num_unknown: scorings that are left and whose sampling time isn't known; they aren't counted.
    """

    shapes: tuple[ShapeCost, ...]
    sampling_seconds: float = 0.0
    num_unknown: int = 0

    @property
    def wall_seconds(self) -> float:
        """One cell after another."""
        return sum(shape.wall_seconds for shape in self.shapes) + self.sampling_seconds

    @property
    def hours(self) -> float:
        """GPU-hours where GPUs work, else hours of the CPU; sampling counts one of either."""
        training = sum(shape.wall_seconds * max(1, shape.step.gpus) for shape in self.shapes)
        return (training + self.sampling_seconds) / 3600

    @property
    def unit(self) -> str:
        """`GPU-hours`, or `CPU-hours` where no GPU works."""
        return "GPU-hours" if any(shape.step.gpus for shape in self.shapes) else "CPU-hours"

    def lines(self, cap_hours: float | None = None) -> list[str]:
        """Return the prediction to read; the last line warns where it is above the cap."""
        text = []
        for shape in self.shapes:
            labels = ", ".join(shape.labels[:4]) + (f" and {len(shape.labels) - 4} more" if shape.labels[4:] else "")
            text.append(
                f"{seconds(shape.wall_seconds)}: {labels}: {shape.num_runs} runs, {shape.num_steps} steps of "
                f"{shape.step.seconds:.3g} s ({shape.step.source})"
            )
        sampling = f", {seconds(self.sampling_seconds)} of it sampling and scoring" if self.sampling_seconds else ""
        text.append(f"predicted: {self.hours:.2f} {self.unit}, {seconds(self.wall_seconds)} one by one{sampling}")
        if self.num_unknown:
            text.append(f"not counted: sampling and scoring of {self.num_unknown} cells, of which none is finished yet")
        if cap_hours is not None and self.hours > cap_hours:
            text.append(f"warning: {self.hours:.2f} {self.unit} are above the cap of {cap_hours:g}")
        return text


def predict_cost(jobs: Sequence[Job], measure: Callable[[dict[str, Any]], StepCost]) -> Prediction:
    """Predict what the jobs that aren't done will take.

    Args:
        jobs: of a plan.
        measure: times a few training steps of a resolved config; called once for each shape that no finished run has.
    """
    known = _known_steps(jobs)
    left: dict[str, dict[Path, list[Job]]] = {}
    for job in jobs:
        if job.trains and not final_checkpoint(job.run_dir).is_file():
            left.setdefault(shape(job.config), {}).setdefault(job.run_dir, []).append(job)
    shapes = [_shape_cost(list(runs.values()), known.get(key), measure) for key, runs in left.items()]
    waiting = [job for job in jobs if not (job.scoring / "metrics.json").is_file()]
    times = _known_sampling(jobs)
    found = [times[_sampling_key(job)] for job in waiting if _sampling_key(job) in times]
    return Prediction(tuple(shapes), sum(found), len(waiting) - len(found))


def _shape_cost(
    runs: Sequence[Sequence[Job]], known: StepCost | None, measure: Callable[[dict[str, Any]], StepCost]
) -> ShapeCost:
    """What the trainings of one shape take; each run with all of its jobs."""
    first = [jobs[0] for jobs in runs]
    labels = tuple(label for jobs in runs for job in jobs for label in job.labels)
    steps = sum(int(look_up(job.config, "trainer.max_steps")) for job in first)
    return ShapeCost(labels, len(runs), steps, known or measure(first[0].config))


def shape(config: Mapping[str, Any]) -> str:
    """Return a hash of what a training step's time depends on: model, mask schedules, batch and devices."""
    arguments = config["model"].get("init_args", {})
    model = {key: value for key, value in arguments.items() if key not in _NOT_IN_SHAPE}
    trainer = {key: look_up(config, f"trainer.{key}") for key in _TRAINER_SHAPE}
    batch = look_up(config, "data.batch_size") or look_up(config, "data.init_args.batch_size")
    return hash_json({"class": config["model"]["class_path"], "model": model, "trainer": trainer, "batch": batch})


def _known_steps(jobs: Iterable[Job]) -> dict[str, StepCost]:
    """Seconds a step of finished runs, by shape; every seed of a job's run counts, planned now or not."""
    known: dict[str, StepCost] = {}
    for job in jobs:
        key, steps = shape(job.config), look_up(job.config, "trainer.max_steps")
        if key in known or not steps:
            continue
        for folder in _seeds(job.run_dir):
            record = read_state(folder, job.protocol_hash).run
            if final_checkpoint(folder).is_file() and (taken := record.get("train_seconds")):
                gpus = round(float(record["gpu_seconds"]) / taken) if record.get("gpu_seconds") else 0
                known[key] = StepCost(taken / steps, gpus, f"from {folder.name}")
                break
    return known


def _known_sampling(jobs: Iterable[Job]) -> dict[tuple[str, str], float]:
    """Seconds of sampling and scoring, by shape and protocol."""
    known: dict[tuple[str, str], float] = {}
    for job in jobs:
        for folder in () if _sampling_key(job) in known else _seeds(job.run_dir):
            if times := read_state(folder, job.protocol_hash).timings:
                known[_sampling_key(job)] = times["sample_seconds"] + times["score_seconds"]
                break
    return known


def _sampling_key(job: Job) -> tuple[str, str]:
    return shape(job.config), job.protocol_hash


def _seeds(run_dir: Path) -> list[Path]:
    """The folders of a run under all its seeds: `AudioNTP-0123456789ab-s*`."""
    return sorted(run_dir.parent.glob(f"{run_dir.name.rpartition('-s')[0]}-s*"))

"""One cell of a matrix: train a run or go on with it, then sample and score it under one protocol.

`python -m experiments.runs.run RUN_DIR --protocol HASH` reads `config.yaml` and `evals/HASH/protocol.json` from the
run's folder. Every step that is done already is skipped, so that it can be killed at any moment and started again.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from callbacks import GracefulStop, HeldOutLosses, ProgressFile
from callbacks.skip_non_finite import skipped_steps
from experiments.config.errors import user_errors
from experiments.config.lightning_cli import SuiteCLI
from experiments.config.resolve import load_config
from experiments.runs.launch import check_launch, global_rank, under_srun
from experiments.runs.record import HELD_OUT, held, is_trained, provenance, update_record
from experiments.runs.score import score
from experiments.runs.stop import EXIT_STOPPED, StopRequest
from mntp.io.json_lines import read_json, write_json

FINAL = "final.ckpt"
SLURM = {
    "class_path": "lightning.pytorch.plugins.environments.SLURMEnvironment",
    "init_args": {"auto_requeue": False},
}
FOLDERS = {
    "LastCheckpoint": "checkpoints",
    "ModelCheckpoint": "checkpoints",
    "SampleLogger": "samples",
    "SkipNonFinite": ".",
}


def run(
    run_dir: Path,
    protocol: str,
    judges: Path = Path("data/judges"),
    weights: Path = Path("weights"),
    stop: StopRequest | None = None,
    patience: float = 0.0,
) -> None:
    """Train, sample and score one run; what is done already is skipped. Of several ranks the first one scores.

    Args:
        run_dir: the run's folder, with its `config.yaml`.
        protocol: hash of the protocol, or several with commas between; their files are `evals/<hash>/protocol.json`.
        judges: folder of cached judges, and of what they heard.
        weights: folder of public checkpoints, for protocols that ask for their scores.
        stop: tells when to stop early; None listens from now on.
        patience: seconds to wait where another process holds the run.
    """
    if stop is None:
        stop = StopRequest()
        stop.listen()
    config = load_config(run_dir / "config.yaml")
    rules = {name: read_json(run_dir / "evals" / name / "protocol.json") for name in protocol.split(",")}
    if absent := [name for name, rule in rules.items() if not rule]:
        raise ValueError(f"{run_dir}: no evals/{absent[0]}/protocol.json; `mntp ablate run` writes it")
    with held(run_dir, patience):
        _end_with_parent()
        progress = ProgressFile(run_dir / "progress.json", protocol)
        with _failures_recorded(run_dir):
            if any(rule["generation"]["source"] == "model" for rule in rules.values()):
                train_and_measure(run_dir, config, progress, stop)
                if stop.made:  # behind the last step, too late for the training to see it
                    raise SystemExit(EXIT_STOPPED)
        if global_rank():
            return
        update_record(run_dir, state="trained", error=None)
        errors: list[Exception] = []
        for name, rule in rules.items():
            progress.protocol = name
            try:
                with _failures_recorded(run_dir):
                    score(run_dir, config, name, rule, judges, weights, progress)
            except (ValueError, OSError, RuntimeError) as error:  # the other ways of decoding may still be scored
                errors.append(error)
                if len(rules) > 1:
                    write_json(run_dir / "evals" / name / "failure.json", {"reason": str(error), "time": time.time()})
        if errors:
            raise errors[0]


@contextlib.contextmanager
def _failures_recorded(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        update_record(run_dir, state="failed", error=str(error).partition("\n")[0])
        raise


def train_and_measure(run_dir: Path, config: dict[str, Any], progress: ProgressFile, stop: StopRequest) -> None:
    """Train, and take the held-out losses of the final weights, where either isn't done yet; on all ranks.

    Raises:
        ValueError: nodes, tasks and devices are not those that the trainer wants.
    """
    if is_trained(run_dir):
        return
    check_launch(config["trainer"])
    final, held_out = run_dir / "checkpoints" / FINAL, HeldOutLosses(run_dir / HELD_OUT)
    suite = None
    if not final.is_file():
        update_record(run_dir, state="training", error=None, **provenance())
        more = [progress, GracefulStop(stop, EXIT_STOPPED)]
        suite = SuiteCLI(_placed(config, run_dir), run=False, more_callbacks=more)
        train(run_dir, suite, progress)
    if suite is None:  # killed just behind the training: what it logs then has no step to stand at
        quiet = _placed(config, run_dir)
        quiet["trainer"] |= {"logger": False, "callbacks": []}
        suite = SuiteCLI(quiet, run=False)
    suite.trainer.callbacks.append(held_out)  # type: ignore[attr-defined]  # Lightning sets it at construction
    losses = suite.trainer.validate(
        suite.model, datamodule=suite.datamodule, ckpt_path=final, weights_only=True, verbose=False
    )[0]
    head = suite.model.head
    update_record(
        run_dir,
        held_out={name.removeprefix("val/"): value for name, value in losses.items()},
        held_out_metric={
            "name": suite.model.held_out_name, "digits": head.held_out_digits, "better": head.held_out_better,
        },
    )  # fmt: skip


def train(run_dir: Path, suite: SuiteCLI, progress: ProgressFile) -> None:
    """Train from the newest checkpoint to the end, and keep the averaged weights as final."""
    folder = run_dir / "checkpoints"
    last = folder / "last.ckpt"
    if not last.is_file() and (transfer := suite.initialise()):
        update_record(run_dir, initialised_from=transfer.summary())
    update_record(run_dir, clips_per_step=suite.clips_per_step)
    suite.trainer.fit(
        suite.model, datamodule=suite.datamodule, ckpt_path=last if last.is_file() else None, weights_only=True
    )
    seconds = progress.train_seconds
    update_record(
        run_dir,
        train_seconds=seconds,
        gpu_seconds=seconds * suite.trainer.world_size if suite.trainer.strategy.root_device.type == "cuda" else None,
        num_parameters=sum(p.numel() for p in suite.model.parameters()),
        num_head_parameters=sum(p.numel() for p in suite.model.head.parameters()),
        skipped_steps=skipped_steps(suite.trainer),
    )
    # After fit the module holds the averaged weights; the file is small, and its presence means "trained".
    suite.trainer.save_checkpoint(folder / FINAL, weights_only=True)


def _placed(config: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """The configuration with everything that a run writes put into its folder."""
    trainer = dict(config["trainer"])
    trainer["default_root_dir"] = str(run_dir)
    batches = trainer["max_steps"] * trainer["accumulate_grad_batches"]
    if trainer["val_check_interval"] >= batches:  # the held-out loss is taken after the training
        trainer["val_check_interval"] = batches + 1
    trainer["enable_progress_bar"] = False
    trainer["logger"] = [
        {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": str(run_dir), "name": "tensorboard", "version": ""},
        },
        {"class_path": "callbacks.JSONLLogger", "init_args": {"path": str(run_dir / "metrics.jsonl")}},
    ]
    if under_srun():  # whoever wrote the job puts it into the queue again, not Lightning
        trainer["plugins"] = [*(trainer["plugins"] or []), SLURM]
    trainer["callbacks"] = [_in_folder(callback, run_dir) for callback in trainer["callbacks"]]
    return {**config, "trainer": trainer}


def _in_folder(callback: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """The entry of a callback that writes files with its folder in the run's; any other as it is."""
    folder = FOLDERS.get(callback["class_path"].rpartition(".")[2])
    if folder is None:
        return callback
    return {**callback, "init_args": {**callback["init_args"], "dirpath": str(run_dir / folder)}}


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, so that a killed runner leaves nothing behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    with user_errors():
        parser = ArgumentParser(prog="python -m experiments.runs.run")
        parser.add_argument("run_dir", type=Path)
        parser.add_function_arguments(run, skip={"run_dir", "stop", "patience"})
        run(**parser.parse_args().as_dict())

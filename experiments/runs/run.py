"""One cell of a matrix: train a run or go on with it, then sample and score it under one protocol or several.

`python -m experiments.runs.run RUN_DIR --protocol HASH` reads `config.yaml` and `evals/HASH/protocol.json` from the
run's folder. Every phase that is done is skipped, so it can be killed at any moment and started again.
"""

import dataclasses
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from callbacks import GracefulStop, HeldOutLosses, ProgressFile
from callbacks.skip_non_finite import skipped_steps
from experiments.config.errors import user_errors
from experiments.config.lightning_cli import SuiteCLI
from experiments.config.options import JudgeOptions
from experiments.config.resolve import allow_classes, load_config
from experiments.runs.launch import check_launch, global_rank, under_srun
from experiments.runs.record import (
    HELD_OUT,
    RunRecord,
    final_checkpoint,
    held,
    is_trained,
    provenance,
    read_protocol,
    write_failure,
)
from experiments.runs.score import score
from experiments.runs.state import eval_folder
from experiments.runs.stop import EXIT_STOPPED, StopRequest
from experiments.scoring.protocol import Protocol

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
    run_dir: Path, protocol: str, options: JudgeOptions, stop: StopRequest | None = None, patience: float = 0.0
) -> None:
    """Train, sample and score one run; what is done already is skipped. Of several ranks the first one scores.

    Args:
        run_dir: the run's folder, with its `config.yaml`.
        protocol: hash of the protocol, or several with commas between; their files are `evals/<hash>/protocol.json`.
        options: where judges and public checkpoints lie.
        stop: tells when to stop early; None listens from now on.
        patience: seconds to wait where another process holds the run.
    """
    if stop is None:
        stop = StopRequest()
        stop.listen()
    config = load_config(run_dir / "config.yaml")
    allow_classes(config)
    protocols = {name: read_protocol(run_dir, name) for name in protocol.split(",")}
    with held(run_dir, patience):
        _end_with_parent()
        record, progress = RunRecord(run_dir), ProgressFile(run_dir / "progress.json", protocol)
        try:
            if any(content["generation"]["source"] == "model" for content in protocols.values()):
                train_and_measure(run_dir, config, record, progress, stop)
                if stop.made:  # after the last step, too late for the training to see it
                    raise SystemExit(EXIT_STOPPED)
            if not global_rank():
                _score_all(run_dir, config, protocols, options, progress)
                record.write(state="trained", error=None)
        except (ValueError, OSError, RuntimeError) as error:
            record.write(state="failed", error=str(error).partition("\n")[0])
            raise


def _score_all(
    run_dir: Path,
    config: dict[str, Any],
    protocols: Mapping[str, Protocol],
    options: JudgeOptions,
    progress: ProgressFile,
) -> None:
    """Score under each protocol; one that fails keeps none of the others from being scored.

    Raises:
        ValueError, OSError, RuntimeError: the first failure, after all are tried.
    """
    errors: list[Exception] = []
    for name, protocol in protocols.items():
        progress.protocol = name
        try:
            score(eval_folder(run_dir, name), config, protocol, options, progress)
        except (ValueError, OSError, RuntimeError) as error:
            errors.append(error)
            if len(protocols) > 1:
                write_failure(eval_folder(run_dir, name), str(error))
    if errors:
        raise errors[0]


def train_and_measure(
    run_dir: Path, config: dict[str, Any], record: RunRecord, progress: ProgressFile, stop: StopRequest
) -> None:
    """Train, and take the held-out losses of the final weights, where either isn't done yet; on all ranks.

    Raises:
        ValueError: nodes, tasks and devices are not those that the trainer wants.
    """
    if is_trained(run_dir):
        return
    check_launch(config["trainer"])
    placed, final = _placed(config, run_dir), final_checkpoint(run_dir)
    if final.is_file():  # killed just after the training: what it logs now has no step to stand at
        placed["trainer"] |= {"logger": False, "callbacks": []}
        suite = SuiteCLI(placed, run=False)
    else:
        suite = SuiteCLI(placed, run=False, more_callbacks=[progress, GracefulStop(stop, EXIT_STOPPED)])
        train(run_dir, suite, record, progress)
    suite.trainer.callbacks.append(HeldOutLosses(run_dir / HELD_OUT))  # type: ignore[attr-defined]  # set by Lightning
    losses = suite.trainer.validate(
        suite.model, datamodule=suite.datamodule, ckpt_path=final, weights_only=True, verbose=False
    )[0]
    record.write(
        state="trained",
        held_out={name.removeprefix("val/"): value for name, value in losses.items()},
        held_out_metric=dataclasses.asdict(suite.model.held_out_metric),
    )


def train(run_dir: Path, suite: SuiteCLI, record: RunRecord, progress: ProgressFile) -> None:
    """Train from the newest checkpoint to the end, and keep the averaged weights as final."""
    last = run_dir / "checkpoints" / "last.ckpt"
    transfer = None if last.is_file() else suite.initialise()
    started = {"initialised_from": transfer.summary()} if transfer else {}
    record.write(state="training", error=None, clips_per_step=suite.clips_per_step, **started, **provenance())
    suite.trainer.fit(
        suite.model, datamodule=suite.datamodule, ckpt_path=last if last.is_file() else None, weights_only=True
    )
    on_gpu, seconds = suite.trainer.strategy.root_device.type == "cuda", progress.train_seconds
    record.write(
        train_seconds=seconds,
        gpu_seconds=seconds * suite.trainer.world_size if on_gpu else None,
        skipped_steps=skipped_steps(suite.trainer),
        **suite.model.parameter_counts(),
    )
    # After fit the module holds the averaged weights; the file is small, and its presence means "trained".
    suite.trainer.save_checkpoint(final_checkpoint(run_dir), weights_only=True)


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
        parser.add_argument("--protocol", type=str, required=True)
        parser.add_class_arguments(JudgeOptions)
        words = parser.parse_args()
        run(words.run_dir, words.protocol, JudgeOptions(words.judges, words.weights))

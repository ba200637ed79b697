"""One cell of a matrix: train a run or go on with it, then sample and score it under one protocol.

`python -m experiments.run RUN_DIR --protocol HASH` reads `config.yaml` and `evals/HASH/protocol.json` from the run's
folder. Every step that is done already is skipped, so that it can be killed at any moment and started again.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from callbacks import HeldOutLosses, ProgressFile
from callbacks.non_finite import skipped_steps
from experiments.cli import SuiteCLI, load_config
from experiments.errors import user_errors
from experiments.run_record import held, provenance, read_json, update_record
from experiments.score import HELD_OUT, score

FINAL = "final.ckpt"
FOLDERS = {
    "LastCheckpoint": "checkpoints",
    "ModelCheckpoint": "checkpoints",
    "SampleLogger": "samples",
    "SkipNonFinite": ".",
}


def run(run_dir: Path, protocol: str, judges: Path = Path("data/judges"), weights: Path = Path("weights")) -> None:
    """Train, sample and score one cell; what is done already is skipped.

    Args:
        run_dir: the run's folder, with its `config.yaml`.
        protocol: hash of the protocol; its file is `evals/<hash>/protocol.json`.
        judges: folder of cached judges, and of what they heard.
        weights: folder of public checkpoints, for protocols that ask for their scores.
    """
    config = load_config(run_dir / "config.yaml")
    rules = read_json(run_dir / "evals" / protocol / "protocol.json")
    if not rules:
        raise ValueError(f"{run_dir}: no evals/{protocol}/protocol.json; `mntp ablate run` writes it")
    with held(run_dir):
        _end_with_parent()
        progress = ProgressFile(run_dir / "progress.json", protocol)
        try:
            if rules["generation"]["source"] == "model":
                train_and_measure(run_dir, config, progress)
            update_record(run_dir, state="trained", error=None)
            score(run_dir, config, protocol, rules, judges, weights, progress)
        except (ValueError, OSError, RuntimeError) as error:
            update_record(run_dir, state="failed", error=str(error).partition("\n")[0])
            raise


def train_and_measure(run_dir: Path, config: dict[str, Any], progress: ProgressFile) -> None:
    """Train, and take the held-out losses of the final weights, where either isn't done yet."""
    final, held_out = run_dir / "checkpoints" / FINAL, HeldOutLosses(run_dir / HELD_OUT)
    suite = None
    if not final.is_file():
        update_record(run_dir, state="training", error=None, **provenance())
        suite = SuiteCLI(_placed(config, run_dir), run=False, more_callbacks=[progress])
        train(run_dir, suite, progress)
    if held_out.path.is_file() and suite is None:
        return
    if suite is None:  # killed just behind the training: what it logs then has no step to stand at
        quiet = _placed(config, run_dir)
        quiet["trainer"] |= {"logger": False, "callbacks": []}
        suite = SuiteCLI(quiet, run=False)
    suite.trainer.callbacks.append(held_out)  # type: ignore[attr-defined]  # Lightning sets it at construction
    losses = suite.trainer.validate(
        suite.model, datamodule=suite.datamodule, ckpt_path=final, weights_only=True, verbose=False
    )[0]
    update_record(run_dir, held_out={name.removeprefix("val/"): value for name, value in losses.items()})


def train(run_dir: Path, suite: SuiteCLI, progress: ProgressFile) -> None:
    """Train from the newest checkpoint to the end, and keep the averaged weights as final."""
    folder = run_dir / "checkpoints"
    last = folder / "last.ckpt"
    if not last.is_file() and (transfer := suite.initialise()):
        update_record(run_dir, initialised_from=transfer.summary())
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
        parser = ArgumentParser(prog="python -m experiments.run")
        parser.add_argument("run_dir", type=Path)
        parser.add_function_arguments(run, skip={"run_dir"})
        run(**parser.parse_args().as_dict())

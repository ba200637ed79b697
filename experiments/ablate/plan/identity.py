"""What makes a run the same run: hashes over everything that can change a result, and nothing else."""

import copy
from typing import Any

from experiments.config.nodes import class_name, look_up
from mntp.io.fingerprint import hash_json

# Keys of the resolved configuration that can't change a trained model; everything else is in the train hash.
NOT_IN_TRAIN_HASH = {
    "model.init_args.seed": "stands in the folder's name, so that the seeds of a cell share their hash",
    "data.seed": "the same seed",
    "model.init_args.decoding": "sampling only: it is in the protocol hash",
    "model.init_args.optimisation.fused": "the same update but for rounding, and by default the device's choice",
    "model.init_args.backbone.init_args.checkpoint_activations": "the same numbers, computed twice",
    "data.store": "a path; what lies there is counted by the store's fingerprint",
    "data.num_workers": "the order of clips is a function of seed, epoch and position",
    "trainer.default_root_dir": "a path",
    "trainer.logger": "what is logged, and where",
    "trainer.log_every_n_steps": "logging",
    "trainer.enable_progress_bar": "display",
    "trainer.enable_model_summary": "display",
    "trainer.profiler": "measurement",
}
INIT_PATH = "init.init_args.path"  # counted by what lies there
# Callbacks and plugins that only look at a run, or write it down; others (the moving average of the weights) change
# what is scored.
ONLOOKERS = ("AtomicCheckpointIO", "AudioWriter", "LastCheckpoint", "ModelCheckpoint", "ProgressFile", "SampleLogger")


def train_hash(config: dict[str, Any], store: str, weights: str = "") -> str:
    """Return the hash of everything that can change the trained model.

    Args:
        config: the resolved configuration.
        store: the prepared data's fingerprint.
        weights: what the weights that it starts from are, wherever they lie; empty for random ones.
    """
    config = copy.deepcopy(config)
    for key in NOT_IN_TRAIN_HASH:
        parent, _, last = key.rpartition(".")
        for place in (parent, f"{parent}.init_args"):  # the second for data of another class than LatentDataModule
            if isinstance(node := look_up(config, place), dict):
                node.pop(last, None)
    for key in ("callbacks", "plugins"):
        if parts := look_up(config, f"trainer.{key}"):
            config["trainer"][key] = [part for part in parts if class_name(part) not in ONLOOKERS]
    if weights:
        config["init"]["init_args"]["path"] = weights
    return hash_json({"config": config, "store": store})

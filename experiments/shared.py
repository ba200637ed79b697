"""What cells share and the first one would otherwise make: the prepared data and the embedded judge."""

from pathlib import Path
from typing import Any

from data_modules.latents import LatentDataModule
from data_modules.scenes import EmbeddedCorpus
from experiments.judge import load_or_train_judge
from mntp.metrics.judge import Judge


def prepare(config: dict[str, Any], judges: Path) -> dict[str, str]:
    """Build the store and train the judge where they are missing, with progress shown.

    Args:
        config: a resolved configuration; its `data` section names the store.
        judges: folder of cached judges.

    Returns:
        Fingerprints: {"store": ..., "judge": ...}.
    """
    data = data_module(config)
    data.prepare_data()
    return {"store": data.store.fingerprint, "judge": judge_of(config, judges).fingerprint()}


def data_module(config: dict[str, Any]) -> LatentDataModule:
    """Build the `data` section of a resolved configuration."""
    data = dict(config["data"])
    corpus = data.pop("corpus")
    return LatentDataModule(**data, corpus=None if corpus is None else EmbeddedCorpus(**corpus))


def judge_of(config: dict[str, Any], judges: Path) -> Judge:
    """The judge for a configuration's data: of its embedded corpus, or else of the default one (out of domain)."""
    corpus = config["data"]["corpus"]
    return load_or_train_judge(judges, EmbeddedCorpus(**(corpus or {})))

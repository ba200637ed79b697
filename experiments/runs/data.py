"""What cells share and the first one would otherwise make: the prepared data and the embedded judge."""

from pathlib import Path
from typing import Any

from data_modules.latents import LatentDataModule
from data_modules.scenes import EmbeddedCorpus
from experiments.scoring.metrics import JudgeKind
from experiments.scoring.score_sets import load_score_set
from mntp.metrics.score_sets import ScoreSet


def prepare(
    config: dict[str, Any], judges: Path, kind: JudgeKind = "embedded", weights: Path = Path("weights")
) -> dict[str, str]:
    """Build the store and train the embedded judge where they are missing, with progress shown.

    Args:
        config: a resolved configuration; its `data` section names the store.
        judges: folder of cached judges.
        kind: which scores.
        weights: folder of public checkpoints.

    Returns:
        Fingerprints: {"store": ..., "judge": ...}.
    """
    data = data_module(config)
    data.prepare_data()
    return {"store": data.store.fingerprint, "judge": score_set_of(config, kind, judges, weights).fingerprint()}


def data_module(config: dict[str, Any]) -> LatentDataModule:
    """Build the `data` section of a resolved configuration."""
    data = dict(config["data"])
    corpus = data.pop("corpus")
    return LatentDataModule(**data, corpus=None if corpus is None else EmbeddedCorpus(**corpus))


def score_set_of(config: dict[str, Any], kind: JudgeKind, judges: Path, weights: Path) -> ScoreSet:
    """The score set for a configuration's data: the embedded judge is that of its corpus, or else the default one."""
    corpus = config["data"]["corpus"]
    return load_score_set(kind, weights, judges, text=True, corpus=EmbeddedCorpus(**(corpus or {})))

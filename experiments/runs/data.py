"""The data and the judge of a resolved config, which many runs share."""

from typing import Any

from data_modules.latents import LatentDataModule
from data_modules.scenes import EmbeddedCorpus
from experiments.config.options import JudgeOptions
from experiments.config.resolve import build_data
from experiments.scoring.metrics import JUDGES
from experiments.scoring.score_sets import load_score_set
from mntp.metrics.score_sets import ScoreSet


def prepare_data(config: dict[str, Any]) -> str:
    """Prepare the data of a resolved config where they are missing, with progress shown; return their fingerprint.

    Raises:
        ValueError: the data can't be prepared here, or are not what the matrix needs.
    """
    data: Any = build_data(config)
    if not hasattr(type(data), "fingerprint"):
        raise ValueError(
            f"data: {type(data).__name__} has no fingerprint, which the matrix asks of a data module: 12 hex digits "
            "over the prepared data (mntp.module.SuiteData)"
        )
    data.prepare_data()
    return str(data.fingerprint)


def latent_data(config: dict[str, Any]) -> LatentDataModule:
    """Build the `data` section of a resolved configuration whose clips are to be decoded and scored.

    Raises:
        ValueError: the section names another class.
    """
    data = build_data(config)
    if not isinstance(data, LatentDataModule):
        raise ValueError(
            f"data: {type(data).__name__} holds no store of tokens, which a judge of sound needs; set judge: held_out "
            "in the scale's eval"
        )
    return data


def score_set_of(config: dict[str, Any], kind: str, options: JudgeOptions) -> ScoreSet:
    """The score set for a configuration's data: the embedded judge is that of its corpus, or else the default one."""
    corpus = config["data"].get("corpus")
    return load_score_set(
        JUDGES[kind], options.weights, options.judges, text=True, corpus=EmbeddedCorpus(**(corpus or {}))
    )

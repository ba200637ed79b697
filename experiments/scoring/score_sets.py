"""Score sets by name: the embedded judge, or the public networks of the AudioLDM toolkit."""

from pathlib import Path

import torch

from data_modules.scenes import EmbeddedCorpus
from experiments.scoring.metrics import JudgeKind
from experiments.scoring.train_judge import load_or_train_judge
from mntp.metrics.score_sets import EmbeddedScores, ScoreSet
from mntp.pretrained.catalogue import find_weights


def load_score_set(
    kind: JudgeKind,
    weights: Path,
    judges: Path,
    text: bool,
    corpus: EmbeddedCorpus | None = None,
    any_weights: bool = False,
) -> ScoreSet:
    """Load a score set onto the GPU, if there is one.

    Args:
        kind: which.
        weights: folder of the public checkpoints, and of `roberta-base`, a folder with CLAP's tokenizer, unless that is
            in the cache of the Hugging Face hub.
        judges: folder of embedded judges of other corpora than the default one; one that is missing is trained.
        text: whether captions will be scored.
        corpus: that the embedded judge is trained on; the default one if None.
        any_weights: take the checkpoints as they are, whatever their hash; the scores then have names of their own.

    Raises:
        ValueError: a checkpoint is missing (the message says where it comes from), altered or of another layout.
    """
    score_set: ScoreSet
    if kind == "embedded":
        score_set = EmbeddedScores(load_or_train_judge(judges, corpus or EmbeddedCorpus()))
    else:
        # Here, because transformers takes seconds to import.
        from mntp.metrics.audioldm_scores import ToolkitScores
        from mntp.metrics.networks.clap import ClapScorer
        from mntp.metrics.networks.cnn14 import Cnn14
        from mntp.metrics.networks.vggish import VGGish
        from mntp.metrics.other_weights import OtherWeights
        from mntp.pretrained.laion_clap import TEXT_TOKENIZER

        tokenizer = weights / TEXT_TOKENIZER if (weights / TEXT_TOKENIZER).is_dir() else TEXT_TOKENIZER
        score_set = toolkit = ToolkitScores(
            Cnn14.from_checkpoint(_find(weights, "cnn14_16k", any_weights)),
            VGGish.from_checkpoint(_find(weights, "vggish", any_weights)),
            ClapScorer.from_checkpoint(_find(weights, "clap_music_speech", any_weights), tokenizer) if text else None,
        )
        if any_weights:
            score_set = OtherWeights(toolkit)
    score_set.to("cuda" if torch.cuda.is_available() else "cpu")
    return score_set


def _find(folder: Path, name: str, any_weights: bool) -> Path:
    path = find_weights(folder, name, checked=False)
    if not any_weights:
        try:
            find_weights(folder, name)
        except ValueError as error:
            remedy = "or score with these files on purpose by --any_weights, under names of their own (fd_any)"
            raise ValueError(f"{error}; {remedy}") from error
    return path

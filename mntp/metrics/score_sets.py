"""Scores with their spread over clips, from embeddings of references and generated clips.

A *score set* names the networks that embed clips and defines the scores over their outputs. Numbers of different score
sets are different quantities and have different names.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mntp.io.code_digest import code_digest
from mntp.io.fingerprint import hash_json
from mntp.metrics.divergence import kl_divergences
from mntp.metrics.frechet import distances_without_each_clip, frechet_distance
from mntp.metrics.inception import inception_score, scores_without_each_clip
from mntp.metrics.jackknife import Score, as_defined, corrected, mean_score, only_value
from mntp.metrics.neighbours import NUM_NEIGHBOURS, neighbourhoods
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.judge import Judge
from mntp.metrics.vendi import vendi_score

Embeddings = dict[str, list[Tensor]]
"""Output of a network -> one tensor a clip, clip i of the reference set being the partner of generated clip i."""
ORDER_SEED = 2020
"""Of the order in which clips are dealt to the splits of an inception score, as in the AudioLDM toolkit."""


class ScoreSet(ABC):
    """Which networks embed the clips, and what is computed from their embeddings.

    Attributes:
        kind: how the set is asked for.
        scores: names of the scores, in the order in which they are shown.
        text_scores: those of them that need captions.
        min_clips: number of clips below which `warnings` says something.
    """

    kind: ClassVar[str]
    scores: ClassVar[tuple[str, ...]]
    text_scores: ClassVar[tuple[str, ...]]
    min_clips: ClassVar[int]

    @property
    @abstractmethod
    def networks(self) -> dict[str, AudioNetwork]:
        """The networks that embed clips, by name."""

    @abstractmethod
    def embed_text(self, captions: list[str]) -> Tensor:
        """Captions as unit vectors [n, E], in one space with the output `audio_embedding`."""

    @abstractmethod
    def compute(self, reference: Embeddings, generated: Embeddings, text: Tensor | None) -> dict[str, Score]:
        """Compute all scores; those on captions only where `text` [n, E] is given.

        Args:
            reference: embeddings of the n reference clips.
            generated: embeddings of their n partners.
            text: embedded captions of the generated clips.

        Raises:
            ValueError: there are fewer than three clips, or a value isn't finite.
        """

    def warnings(self, num_clips: int) -> list[str]:
        """What readers of scores of so few clips should know: a sentence, or none."""
        if num_clips >= self.min_clips:
            return []
        return [
            f"{num_clips} clips are few: below {self.min_clips} the correction of distances and the intervals are "
            "rough, and small differences say little"
        ]

    def inputs(self, score: str) -> tuple[str, ...]:
        """What a score rests on: names of networks, and `captions`."""
        return (*self.networks, *(("captions",) if score in self.text_scores else ()))

    def definition(self) -> str:
        """Return 12 hex digits over the code that computes the scores from embeddings."""
        return code_digest([type(self)], without=[ScoreSet, code_digest])

    def describe(self) -> dict[str, dict[str, str]]:
        """The networks by name: fingerprint and feature version."""
        return {
            name: {"fingerprint": network.fingerprint(), "feature_version": network.feature_version}
            for name, network in self.networks.items()
        }

    def fingerprint(self) -> str:
        """Return 12 hex digits over networks and definitions: equal only for score sets that score alike."""
        return hash_json([self.kind, self.describe(), self.definition()])

    def to(self, device: str) -> None:
        """Move the networks."""
        for network in self.networks.values():
            network.to(device)


class EmbeddedScores(ScoreSet):
    """Scores of the embedded judge, under names of their own.

    `fd_judge` (squared feature units) is the Frechet distance without its bias of order 1 / n, and may fall a little
    below 0 where the sets are alike; `fd_judge_raw` is the plain one. `kl_judge` is in nats, reference || generated;
    `is_judge` lies between 1 and the number of classes, and is averaged over splits; `text_judge` is the mean cosine
    similarity of clips and their captions. `precision_judge`, `recall_judge`, `density_judge` and `coverage_judge`
    compare neighbourhoods, and `vendi_judge` counts different clips.
    """

    kind = "embedded"
    scores = (
        "fd_judge",
        "kl_judge",
        "is_judge",
        "text_judge",
        "fd_judge_raw",
        "precision_judge",
        "recall_judge",
        "density_judge",
        "coverage_judge",
        "vendi_judge",
    )
    text_scores = ("text_judge",)
    min_clips = 128  # twice the judge's features
    num_splits = 4

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @property
    def networks(self) -> dict[str, AudioNetwork]:
        """The judge alone."""
        return {"judge": self.judge}

    def embed_text(self, captions: list[str]) -> Tensor:
        """By the judge's text tower."""
        with torch.no_grad():
            return self.judge.embed_text(captions).cpu()

    def compute(self, reference: Embeddings, generated: Embeddings, text: Tensor | None) -> dict[str, Score]:
        """See the class."""
        log_p_ref, log_p_gen = (torch.stack(outputs["log_probs"]) for outputs in (reference, generated))
        features_ref, features_gen = (torch.stack(outputs["features"]) for outputs in (reference, generated))
        raw, unbiased = frechet(reference["features"], generated["features"])
        scores = {
            "fd_judge": unbiased,
            "fd_judge_raw": raw,
            "kl_judge": mean_score(kl_divergences(log_p_ref, log_p_gen)),
            "is_judge": inception(log_p_gen, max(1, min(self.num_splits, len(log_p_gen) // 2))),
            "vendi_judge": only_value(vendi_score(features_gen)),
        }
        if text is not None:
            scores["text_judge"] = similarity(generated["audio_embedding"], text)
        if len(features_gen) > NUM_NEIGHBOURS:
            found = neighbourhoods(features_gen, features_ref)
            scores |= {f"{name}_judge": only_value(value) for name, value in found._asdict().items()}
        return scores


def frechet(x: Sequence[Tensor], y: Sequence[Tensor]) -> tuple[Score, Score]:
    """Frechet distance over all rows of all clips, as defined (not comparable), and without its bias of order 1 / n.

    Args:
        x: a clip's row [F], or its rows [rows, F], for each reference clip.
        y: the same for their partners.
    """
    (rows_x, owner_x), (rows_y, owner_y) = _rows(x), _rows(y)
    whole = frechet_distance(rows_x, rows_y)
    left_out = distances_without_each_clip(rows_x, rows_y, owner_x, owner_y)
    raw = as_defined(whole, left_out, comparable=False, floor=0.0)
    return raw, corrected(whole, left_out, floor=0.0)


def inception(log_p: Tensor, num_splits: int) -> Score:
    """Inception score over splits of the rows in the AudioLDM toolkit's order; no spread below two rows a split."""
    log_p = log_p[torch.from_numpy(np.random.RandomState(ORDER_SEED).permutation(len(log_p)))]
    value = inception_score(log_p, num_splits)
    if len(log_p) < 2 * num_splits:
        return only_value(value)
    return as_defined(value, scores_without_each_clip(log_p, num_splits), floor=1.0)


def similarity(audio: Sequence[Tensor], text: Tensor) -> Score:
    """Mean cosine similarity of clips and their captions: not clamped, not scaled."""
    return mean_score(F.cosine_similarity(torch.stack(list(audio)).double(), text.double(), dim=1))


def _rows(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All rows [R, F] of n clips, and the clip of each row [R]."""
    rows = [clip if clip.ndim == 2 else clip[None] for clip in clips]
    owner = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(row) for row in rows]))
    return torch.cat(rows), owner

"""From what networks heard in two sets of clips to scores with their replicates.

A *score set* names the networks that listen and defines the scores over their outputs. Numbers of different score sets
are different quantities and have different names.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mntp.metrics.bootstrap import mean_replicates
from mntp.metrics.divergence import kl_divergences
from mntp.metrics.frechet import frechet_distance, frechet_replicates
from mntp.metrics.inception import inception_replicates, inception_score
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.judge import Judge

Heard = dict[str, list[Tensor]]
"""Output of a network -> one tensor a clip, clip i of the reference set being the partner of generated clip i."""
Progress = Callable[[], None]


@dataclass(frozen=True)
class Score:
    """A score and its values on resampled clips, [num_replicates] float64; empty where none apply."""

    value: float
    replicates: Tensor


class ScoreSet(ABC):
    """Which networks hear the clips, and what is computed from what they heard.

    Attributes:
        kind: how the set is asked for.
        scores: names of the scores, those on captions last.
        text_scores: those of them that need captions.
        num_slow: scores whose replicates take long; `progress` is called once for each of their replicates.
    """

    kind: ClassVar[str]
    scores: ClassVar[tuple[str, ...]]
    text_scores: ClassVar[tuple[str, ...]]
    num_slow: ClassVar[int]

    @property
    @abstractmethod
    def networks(self) -> dict[str, AudioNetwork]:
        """The networks that listen, by name."""

    @abstractmethod
    def embed_text(self, captions: list[str]) -> Tensor:
        """Captions as unit vectors [n, E], in one space with the output `audio_embedding`."""

    @abstractmethod
    def compute(
        self, reference: Heard, generated: Heard, text: Tensor | None, draws: Tensor, progress: Progress = lambda: None
    ) -> dict[str, Score]:
        """Compute all scores; those on captions only where `text` [n, E] is given.

        Args:
            reference: what the networks heard in the n reference clips.
            generated: what they heard in their n partners.
            text: embedded captions of the generated clips.
            draws: of `draw_clips(n)`.
            progress: called as clips are resampled.
        """

    def fingerprints(self) -> dict[str, str]:
        """The networks' fingerprints by name."""
        return {name: network.fingerprint() for name, network in self.networks.items()}

    def describe(self) -> dict[str, dict[str, str]]:
        """The networks by name, for readers: fingerprint and front end."""
        return {
            name: {"fingerprint": network.fingerprint(), "front_end": network.front_end}
            for name, network in self.networks.items()
        }

    def fingerprint(self) -> str:
        """12 hex digits: equal only for score sets that score alike; that of a network that stands alone."""
        fingerprints = self.fingerprints()
        if len(fingerprints) == 1:
            return next(iter(fingerprints.values()))
        return hashlib.sha256(json.dumps([self.kind, fingerprints], sort_keys=True).encode()).hexdigest()[:12]

    def to(self, device: str) -> None:
        """Move the networks."""
        for network in self.networks.values():
            network.to(device)


class EmbeddedScores(ScoreSet):
    """Scores of the embedded judge, under names of their own.

    `fd_judge` (squared feature units), `kl_judge` (nats, reference || generated), `is_judge` (1 to the number of
    classes), `text_judge` (mean cosine similarity of clips and their captions).
    """

    kind = "embedded"
    scores = ("fd_judge", "kl_judge", "is_judge", "text_judge")
    text_scores = ("text_judge",)
    num_slow = 1

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

    def compute(
        self, reference: Heard, generated: Heard, text: Tensor | None, draws: Tensor, progress: Progress = lambda: None
    ) -> dict[str, Score]:
        """See the class."""
        log_p_ref, log_p_gen = (torch.stack(heard["log_probs"]) for heard in (reference, generated))
        scores = {
            "fd_judge": frechet(reference["features"], generated["features"], draws, progress),
            "kl_judge": mean_of(kl_divergences(log_p_ref, log_p_gen), draws),
            "is_judge": inception(log_p_gen, 1, draws),
        }
        if text is not None:
            scores["text_judge"] = similarity(generated["audio_embedding"], text, draws)
        return scores


def frechet(x: Sequence[Tensor], y: Sequence[Tensor], draws: Tensor, progress: Progress) -> Score:
    """Frechet distance over all rows of all clips; a clip gives one row [F] or several [rows, F]."""
    (rows_x, owner_x), (rows_y, owner_y) = _rows(x), _rows(y)
    replicates = frechet_replicates(rows_x, rows_y, draws, owner_x, owner_y, progress)
    return Score(frechet_distance(rows_x, rows_y), replicates)


def inception(log_p: Tensor, num_splits: int, draws: Tensor) -> Score:
    """Inception score of the rows in the order given, averaged over consecutive splits."""
    return Score(inception_score(log_p, num_splits), inception_replicates(log_p, draws, num_splits))


def mean_of(values: Tensor, draws: Tensor) -> Score:
    """Mean over clips of values [n]."""
    values = values.double()
    return Score(values.mean().item(), mean_replicates(values, draws))


def similarity(audio: Sequence[Tensor], text: Tensor, draws: Tensor) -> Score:
    """Mean cosine similarity of clips and their captions: not clamped, not scaled."""
    return mean_of(F.cosine_similarity(torch.stack(list(audio)).double(), text.double(), dim=1), draws)


def _rows(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All rows [R, F] of n clips, and the clip of each row [R]."""
    rows = [clip if clip.ndim == 2 else clip[None] for clip in clips]
    owner = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(row) for row in rows]))
    return torch.cat(rows), owner

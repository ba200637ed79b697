"""Scores by the toolkit's definitions with checkpoints that aren't the published ones."""

from torch import Tensor

from mntp.metrics.jackknife import Score
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.score_sets import Embeddings, ScoreSet

SUFFIX = "_any"


class OtherWeights(ScoreSet):
    """The scores of another set, under names of their own (`fd_any`), so that no table takes them for the paper's."""

    kind = "any_weights"

    def __init__(self, score_set: ScoreSet) -> None:
        self.score_set = score_set
        # Of a class elsewhere, of the other set here.
        self.scores = tuple(f"{name}{SUFFIX}" for name in score_set.scores)  # type: ignore[misc]
        self.text_scores = tuple(f"{name}{SUFFIX}" for name in score_set.text_scores)  # type: ignore[misc]
        self.min_clips = score_set.min_clips  # type: ignore[misc]

    @property
    def networks(self) -> dict[str, AudioNetwork]:
        """Those of the other set."""
        return self.score_set.networks

    def embed_text(self, captions: list[str]) -> Tensor:
        """By the other set."""
        return self.score_set.embed_text(captions)

    def inputs(self, score: str) -> tuple[str, ...]:
        """As the other set's score of the name without suffix."""
        return self.score_set.inputs(score.removesuffix(SUFFIX))

    def definition(self) -> str:
        """That of the other set."""
        return self.score_set.definition()

    def compute(self, reference: Embeddings, generated: Embeddings, text: Tensor | None) -> dict[str, Score]:
        """By the other set."""
        scores = self.score_set.compute(reference, generated, text)
        return {f"{name}{SUFFIX}": score for name, score in scores.items()}

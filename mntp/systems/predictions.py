"""What a system scores in a batch: contexts, and the tokens that they predict."""

from dataclasses import dataclass

from torch import Tensor

from mntp.backbones.base import gather_rows
from mntp.batch import TokenBatch
from mntp.heads import Head


@dataclass
class Predictions:
    """The pairs of context and target that a system scores in a batch.

    Attributes:
        z: contexts [B, T, C].
        positions: [B, T] int64, the place of the token that each context predicts.
        scored: [B, T] bool, False where a context has no target; None where all have one.
    """

    z: Tensor
    positions: Tensor
    scored: Tensor | None = None


def gather_targets(batch: TokenBatch, positions: Tensor, head: Head) -> Tensor:
    """What a head is to predict at each position.

    Args:
        batch: clips of N tokens.
        positions: [B, T] int64, from 0 to N - 1.
        head: says by its `target` whether it predicts values or ids.

    Returns:
        Values [B, T, D], or ids [B, T] int64.

    Raises:
        ValueError: the head predicts ids, and the tokens have none.
    """
    if head.target == "values":
        return gather_rows(batch.tokens, positions)
    if batch.ids is None:
        raise ValueError(
            f"{type(head).__name__} predicts ids, but the tokens of this data have values only: prepare it with a "
            "tokenizer that has a vocabulary, or use another head"
        )
    return batch.ids.gather(1, positions)

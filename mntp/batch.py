"""The one batch type, and the legend of shapes used throughout the suite.

B batch of clips, N tokens of a clip, D token_dim (values of a token), P prompt length, C model width,
T inputs of a causal backbone (BOS and the tokens that are fed), M scored pairs (context z, target token).

`mask` is True where a token is hidden; `valid` is True where a token holds sound and not padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class TextStream:
    """Shape of one text stream: at most `max_length` vectors of `dim` values for a caption."""

    dim: int
    max_length: int


@dataclass
class TextStates:
    """Embeddings of one text stream for a batch of captions.

    Attributes:
        states: [B, L, dim] float32, zero beyond a caption's own length.
        lengths: [B] int64, how many of the L states are real (1 <= length <= L).
    """

    states: Tensor
    lengths: Tensor

    @classmethod
    def pad(cls, captions: Sequence[Tensor], device: torch.device) -> Self:
        """A batch of one [length, dim] for each caption, on `device`."""
        lengths = torch.tensor([len(states) for states in captions], device=device)
        return cls(pad_sequence([states.to(device) for states in captions], batch_first=True), lengths)


@dataclass
class TokenBatch:
    """A batch of prepared clips.

    Attributes:
        tokens: [B, N, D] float32, normalised to about unit variance.
        valid: [B, N] bool, True where the token holds sound, False where it is padding.
        text: text states by stream name (`pooled`, `words`).
        index: [B] int64, the clip's row in the store's `clips.csv`.
        captions: the B captions.
        ids: [B, N] int64, each token's id in the tokenizer's vocabulary; None where tokens have values only.
    """

    tokens: Tensor
    valid: Tensor
    text: dict[str, TextStates]
    index: Tensor
    captions: list[str]
    ids: Tensor | None = None

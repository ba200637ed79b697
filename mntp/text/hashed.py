"""The text encoder without weights: every word has its own random vector, drawn from its hash."""

import hashlib
import unicodedata
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mntp.batch import TextStream
from mntp.text.base import TextEncoder

# They belong to a word inside of it ("dog's", "rain-like"), but not at its ends.
_JOINERS = "'’-"


class HashedText(TextEncoder):
    """Hashed word features: the same vector for the same word, on every machine and in every script.

    A word's vector is standard normal, drawn from SHAKE-256 of its lower-cased letters; nothing is learned, so
    similar words are as far apart as any others. Stream `words` has one vector per word, in order. Stream `pooled`
    is one vector, the mean over words and ordered pairs of neighbours (so that "a siren, then rain" is not "rain,
    then a siren"), rescaled to a root mean square of 1.
    """

    def __init__(self, dim: int = 64, slots: int = 16) -> None:
        """Prepare the encoder.

        Args:
            dim: values per vector, in both streams.
            slots: words of a caption that stream `words` keeps; `pooled` uses all of them.

        Raises:
            ValueError: an argument is below 1.
        """
        if dim < 1 or slots < 1:
            raise ValueError(f"HashedText got dim={dim}, slots={slots}; expected both at least 1")
        self.dim = dim
        self.slots = slots
        self.streams = {"pooled": TextStream(dim, 1), "words": TextStream(dim, slots)}
        self._vectors: dict[str, Tensor] = {}

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values."""
        return {"dim": self.dim, "slots": self.slots}

    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        """Embed captions; for each stream a list of float32 [length, dim] tensors, 1 <= length <= slots.

        Raises:
            ValueError: a caption has no words; the message shows it.
        """
        split = [_split_words(caption) for caption in captions]
        return {
            "pooled": [self._pool(words) for words in split],
            "words": [self._embed(words[: self.slots]) for words in split],
        }

    def _embed(self, words: list[str]) -> Tensor:
        for word in words:
            if word not in self._vectors:
                self._vectors[word] = _gaussian(word, self.dim)
        return torch.stack([self._vectors[word] for word in words])

    def _pool(self, words: list[str]) -> Tensor:
        # No word has a space in it, so a pair can't be mistaken for a word.
        pairs = [f"{first} {second}" for first, second in pairwise(words)]
        mean = self._embed(words + pairs).mean(dim=0, keepdim=True)
        return mean / mean.square().mean().sqrt().clamp(min=1e-6)


def _split_words(caption: str) -> list[str]:
    """Lower-case a caption and split it at spaces and punctuation.

    Raises:
        ValueError: nothing is left.
    """
    text = unicodedata.normalize("NFC", caption).lower()
    spaced = "".join(
        " " if unicodedata.category(char).startswith("P") and char not in _JOINERS else char for char in text
    )
    words = [word for word in (part.strip(_JOINERS) for part in spaced.split()) if word]
    if not words:
        raise ValueError(f"caption {caption!r} has no words; expected at least one")
    return words


def _gaussian(text: str, dim: int) -> Tensor:
    """A standard normal vector [dim] that is a function of `text` alone."""
    digest = hashlib.shake_256(text.encode("utf-8", errors="surrogatepass")).digest(4 * dim)
    uniform = (np.frombuffer(digest, dtype="<u4") + 0.5) / 2**32
    return torch.special.ndtri(torch.from_numpy(uniform)).float()

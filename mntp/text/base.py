"""What a text encoder is: captions -> one pooled vector and one vector per word, as two named streams."""

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from mntp.batch import Stream


class TextEncoder(ABC):
    """Embeds captions into named streams.

    `pooled` is one vector for the whole caption (CLAP's place), `words` one vector per word or sub-word
    (FLAN-T5's place), cut to the stream's slots.
    """

    streams: dict[str, Stream]

    @abstractmethod
    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        """Embed captions; for each stream a list of float32 [length, dim] tensors, 1 <= length <= slots.

        Raises:
            ValueError: a caption has no words; the message shows it.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values."""

    def fingerprint(self) -> str:
        """12 hex digits over class and settings."""
        text = json.dumps([type(self).__name__, self.settings()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

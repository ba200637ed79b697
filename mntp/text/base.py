"""What a text encoder is: captions -> one pooled vector and one vector per word, as two named streams."""

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from mntp.batch import TextStream


class TextEncoder(ABC):
    """Embeds captions into named streams.

    `pooled` is one vector for the whole caption (CLAP's place), `words` one vector per word or sub-word
    (FLAN-T5's place), cut to the stream's slots.
    """

    streams: dict[str, TextStream]

    @abstractmethod
    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        """Embed captions; for each stream a list of float32 [length, dim] tensors, 1 <= length <= slots.

        Raises:
            ValueError: the encoder can make nothing of a caption; the message shows it.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values."""

    def identity(self) -> dict[str, Any]:
        """The settings that decide what comes out: all of them, unless one only says where something lies."""
        return self.settings()

    def fingerprint(self) -> str:
        """12 hex digits over class and identity: equal only for encoders that embed alike."""
        text = json.dumps([type(self).__name__, self.identity()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def text_spec(encoder: TextEncoder) -> dict[str, Any]:
    """Describe a text encoder, so that `mntp.text.build_text_encoder` gives its equal.

    Returns:
        "class" and "fingerprint" (strings) and "settings" (JSON values).
    """
    return {
        "class": type(encoder).__name__,
        "settings": encoder.settings(),
        "fingerprint": encoder.fingerprint(),
    }

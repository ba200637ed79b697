"""The interface of a text encoder: captions -> named streams of vectors."""

import json
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from mntp.batch import TextStream
from mntp.io.fingerprint import hash_text
from mntp.registry import class_name


class TextEncoder(ABC):
    """Embeds captions into named streams.

    `pooled` is one vector of the whole caption (in the paper, CLAP's), `words` one vector a word or sub-word (in the
    paper, FLAN-T5's), cut to the stream's number of slots.
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
        """The settings that decide the embeddings: all of them, except those that only say where a file lies."""
        return self.settings()

    def fingerprint(self) -> str:
        """12 hex digits over class and identity: equal only for encoders that embed alike."""
        return hash_text(json.dumps([class_name(type(self)), self.identity()], sort_keys=True))


def text_spec(encoder: TextEncoder) -> dict[str, Any]:
    """Describe a text encoder, so that `mntp.text.build_text_encoder` gives its equal.

    Returns:
        "class" and "fingerprint" (strings) and "settings" (JSON values). The class is the plain name of one of the
        suite's own, or the dotted path of a user's.

    Raises:
        ValueError: the class can't be imported by its name.
    """
    return {
        "class": class_name(type(encoder)),
        "settings": encoder.settings(),
        "fingerprint": encoder.fingerprint(),
    }

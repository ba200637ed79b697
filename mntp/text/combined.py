"""One text encoder for each stream."""

from typing import Any

from torch import Tensor

from mntp.text.base import TextEncoder, text_spec


class CombinedText(TextEncoder):
    """The stream `pooled` of one text encoder beside the stream `words` of another: the paper's CLAP and FLAN-T5.

    Both are given as objects: either may be any encoder (CLAP of transformers or of LAION's package, T5 of any size,
    hashed words, one of your own), with its own checkpoint and hash.

    Args:
        pooled: gives the stream `pooled`.
        words: gives the stream `words`.

    Raises:
        ValueError: an encoder doesn't give its stream.
    """

    def __init__(self, pooled: TextEncoder, words: TextEncoder) -> None:
        self._parts = {"pooled": pooled, "words": words}
        for name, encoder in self._parts.items():
            if name not in encoder.streams:
                raise ValueError(
                    f"{name}: {type(encoder).__name__} gives {', '.join(encoder.streams)}; expected an encoder that "
                    f"gives the stream {name}"
                )
        self.streams = {name: encoder.streams[name] for name, encoder in self._parts.items()}

    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        """Embed captions; for each stream a list of float32 [length, dim] tensors, 1 <= length <= slots."""
        return {name: encoder.encode(captions)[name] for name, encoder in self._parts.items()}

    def settings(self) -> dict[str, Any]:
        """The specs of both encoders (`text_spec`)."""
        return {name: text_spec(encoder) for name, encoder in self._parts.items()}

    def identity(self) -> dict[str, Any]:
        """The fingerprints of both encoders."""
        return {name: encoder.fingerprint() for name, encoder in self._parts.items()}

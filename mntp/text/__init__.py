"""Text encoders: captions -> embeddings; and how one travels with a store and with a checkpoint."""

from collections.abc import Mapping
from typing import Any

from mntp.registry import build
from mntp.text.base import TextEncoder
from mntp.text.hashed import HashedText

TEXT_ENCODERS: dict[str, type[TextEncoder]] = {cls.__name__: cls for cls in (HashedText,)}


def text_spec(encoder: TextEncoder) -> dict[str, Any]:
    """Describe a text encoder, so that `build_text_encoder` gives its equal.

    Returns:
        "class" and "fingerprint" (strings) and "settings" (JSON values).
    """
    return {
        "class": type(encoder).__name__,
        "settings": encoder.settings(),
        "fingerprint": encoder.fingerprint(),
    }


def build_text_encoder(spec: Mapping[str, Any]) -> TextEncoder:
    """Build the text encoder that a spec describes.

    Raises:
        ValueError: an unknown class, settings that it does not take, or another fingerprint than the spec's.
    """
    encoder = build(spec, TEXT_ENCODERS, "text encoder")
    if encoder.fingerprint() != spec["fingerprint"]:
        raise ValueError(
            f"text encoder {spec['class']} has fingerprint {encoder.fingerprint()}, expected {spec['fingerprint']}: "
            "its description was altered; prepare the store again"
        )
    return encoder

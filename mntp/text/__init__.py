"""Text encoders: captions -> embeddings. Their specs travel with stores and checkpoints, and build them again."""

from collections.abc import Mapping
from typing import Any

from mntp.registry import build
from mntp.text.base import TextEncoder, text_spec
from mntp.text.clap import ClapText
from mntp.text.combined import CombinedText
from mntp.text.flan_t5 import FlanT5
from mntp.text.hashed import HashedText
from mntp.text.laion_package import LaionClapText

TEXT_ENCODERS: dict[str, type[TextEncoder]] = {
    cls.__name__: cls for cls in (HashedText, CombinedText, ClapText, FlanT5, LaionClapText)
}

__all__ = [
    "TEXT_ENCODERS",
    "ClapText",
    "CombinedText",
    "FlanT5",
    "HashedText",
    "LaionClapText",
    "TextEncoder",
    "build_text_encoder",
    "text_spec",
]


def build_text_encoder(spec: Mapping[str, Any]) -> TextEncoder:
    """Build the text encoder that a spec describes.

    Raises:
        ValueError: an unknown class, or one of a package that isn't imported (see `mntp.registry`); settings that it
            does not take; another fingerprint than the spec's; or a public model that can't be found or has other
            weights.
    """
    parts = {
        key: build_text_encoder(value) if isinstance(value, Mapping) and "class" in value else value
        for key, value in spec["settings"].items()
    }
    encoder = build({**spec, "settings": parts}, TEXT_ENCODERS, "text encoder", TextEncoder)
    if encoder.fingerprint() != spec["fingerprint"]:
        raise ValueError(
            f"text encoder {spec['class']} has fingerprint {encoder.fingerprint()}, expected {spec['fingerprint']}: "
            "its description was altered; prepare the store again"
        )
    return encoder

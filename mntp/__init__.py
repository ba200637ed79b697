"""Continuous-token audio language models: AudioNTP, AudioMNTP, AudioMAR (arXiv 2507.09834)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mntp.inference.text_to_audio import TextToAudio

__all__ = ["TextToAudio"]


def __getattr__(name: str) -> Any:
    """Import on use: looking at results, or at `mntp.io.files` alone, must not take the seconds that torch takes."""
    if name == "TextToAudio":
        from mntp.inference.text_to_audio import TextToAudio

        return TextToAudio
    raise AttributeError(f"module 'mntp' has no attribute {name!r}")

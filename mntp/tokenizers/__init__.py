"""Tokenizers: audio <-> tokens. Their specs travel with stores and checkpoints, and build them again."""

from collections.abc import Mapping
from typing import Any

from mntp.registry import build, class_name
from mntp.tokenizers.audioldm import AudioLDM
from mntp.tokenizers.base import Tokenizer
from mntp.tokenizers.layout import TokenLayout
from mntp.tokenizers.mel import MelTokenizer

__all__ = ["TOKENIZERS", "AudioLDM", "MelTokenizer", "TokenLayout", "Tokenizer", "build_tokenizer", "tokenizer_spec"]

TOKENIZERS: dict[str, type[Tokenizer]] = {cls.__name__: cls for cls in (MelTokenizer, AudioLDM)}


def tokenizer_spec(tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe a tokenizer completely, so that `build_tokenizer` gives its equal.

    Returns:
        "class" and "fingerprint" (strings), "settings" (JSON values), "state" (tensors by name, on the CPU). The class
        is the plain name of one of the suite's own, or the dotted path of a user's.

    Raises:
        ValueError: the class can't be imported by its name.
    """
    return {
        "class": class_name(type(tokenizer)),
        "settings": tokenizer.settings(),
        "state": {name: tensor.detach().cpu().clone() for name, tensor in tokenizer.state().items()},
        "fingerprint": tokenizer.fingerprint(),
    }


def build_tokenizer(spec: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer that a spec describes, in evaluation mode.

    Raises:
        ValueError: an unknown class, or one of a package that isn't imported (see `mntp.registry`); settings or state
            that don't fit it; content that does not match the spec's fingerprint; or a public model that can't be
            found or has other weights.
    """
    tokenizer = build(spec, TOKENIZERS, "tokenizer", Tokenizer)
    expected, state = tokenizer.state(), spec["state"]
    wrong = [name for name in expected if name not in state or state[name].shape != expected[name].shape]
    wrong += [name for name in state if name not in expected]
    if wrong:
        raise ValueError(
            f"the state of tokenizer {spec['class']} does not fit its settings {spec['settings']}: wrong or missing "
            f"{', '.join(sorted(wrong))}; prepare the store again"
        )
    tokenizer.load_state_dict(dict(state), strict=False)  # its names were compared; weights of public models are there
    if tokenizer.fingerprint() != spec["fingerprint"]:
        raise ValueError(
            f"the state of tokenizer {spec['class']} has fingerprint {tokenizer.fingerprint()}, expected "
            f"{spec['fingerprint']}: it was altered; prepare the store again"
        )
    return tokenizer.eval()

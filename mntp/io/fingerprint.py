"""Fingerprints: short hashes of plain data, tensors, weights and files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mntp.io.files import file_sha256

if TYPE_CHECKING:  # commands that only hash plain data start without torch
    from torch import Tensor, nn

_NUM_DIGITS = 12


def hash_text(text: str) -> str:
    """Return 12 hex digits over a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_NUM_DIGITS]


def hash_json(content: Any) -> str:
    """Return 12 hex digits over plain data; the order of keys doesn't matter."""
    return hash_text(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as `sha256:...`.

    Raises:
        OSError: it can't be read.
    """
    return f"sha256:{file_sha256(path)}"


def hash_tensors(weights: "Mapping[str, Tensor]", **facts: object) -> str:
    """Return 12 hex digits over tensors by name, and over facts that no tensor shows (JSON values).

    Tensors are compared in float32, whatever dtype they were stored in. Integer tensors, such as indices, are left
    out.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        if not tensor.is_floating_point():
            continue
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:_NUM_DIGITS]


def check_content(path: str, found: str, expected: str | None) -> str:
    """Return `found`, the hash of the weights at `path`, if it is the expected one; None accepts any.

    Raises:
        ValueError: the hashes differ.
    """
    if expected not in (None, found):
        raise ValueError(
            f"{path}: holds weights {found}, expected {expected}: give the checkpoint that was used before (its name "
            "may lead to other files now), or prepare the store again and train anew"
        )
    return found


def hash_state(state: "Mapping[str, Tensor]", description: str) -> str:
    """Return 12 hex digits over a description and the names and values of tensors, in the dtypes that they have."""
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:_NUM_DIGITS]


def hash_weights(network: "nn.Module", description: str) -> str:
    """Return 12 hex digits over a description and a network's state dict."""
    return hash_state(network.state_dict(), description)

"""How a score was made, as plain data with hashes: what two numbers must share before they stand side by side.

A protocol has two parts. `scoring` is the yardstick: reference set, captions, networks. `generation` says how the
scored audio was made: model, guidance, temperature, sampler, steps, seed. Rows of a table share the first; the second
may be what they compare.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mntp.io.fingerprint import hash_json

Protocol = dict[str, Any]

GENERATION = "generation.json"
"""Beside generated sounds: how they were made."""


def scoring_hash(protocol: Protocol) -> str:
    """12 hex digits over the yardstick."""
    return hash_json(protocol["scoring"])


def protocol_hash(protocol: Protocol) -> str:
    """12 hex digits over both parts."""
    return hash_json({part: protocol[part] for part in ("scoring", "generation")})


def folder_protocol(
    kind: str,
    networks: Mapping[str, Any],
    names: Sequence[str],
    digests: Sequence[str],
    seconds: tuple[float, float],
    captions: Mapping[str, str] | None,
    caption_choice: str,
    num_missing: int,
    generation: Any,
) -> Protocol:
    """The protocol of a scoring of two folders.

    Args:
        kind: of the score set.
        networks: its networks, front ends and checkpoints included.
        names: the scored files.
        digests: SHA-256 of each reference file.
        seconds: length of the shortest and of the longest reference.
        captions: by file name, or None.
        caption_choice: how one was chosen where a file has several.
        num_missing: reference files that had no partner and were left out.
        generation: what is known of how the generated files were made; None if nothing is.
    """
    return {
        "scoring": {
            "kind": kind,
            "networks": dict(networks),
            "reference": hash_json(dict(zip(names, digests, strict=True))),
            "reference_seconds": list(seconds),
            "captions": None if captions is None else hash_json({name: captions[name] for name in names}),
            "caption_choice": None if captions is None else caption_choice,
            "num_clips": len(names),
            "num_missing": num_missing,
        },
        "generation": generation,
    }

"""How a score was made, as plain data with hashes: what two numbers must share before they are compared.

A protocol has three parts. `scoring` says what is measured: reference set, captions, networks, and the code that
defines the scores. `generation` says how the scored audio was made: model, guidance, temperature, sampler, steps, seed.
`generated` names the scored files by their content. Runs and folders write the same schema.

What `mntp ablate plan` asks of a run is a protocol, too, of which the reference set is named by its store.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mntp.io.fingerprint import hash_json

if TYPE_CHECKING:  # looking at results imports no torch
    from mntp.metrics.score_sets import ScoreSet

Protocol = dict[str, Any]

GENERATION = "generation.json"
"""Beside generated sounds: how they were made."""

_SHARED = ("kind", "definition", "reference", "num_clips", "num_missing")


def scoring_hash(protocol: Protocol) -> str:
    """Return 12 hex digits over what is measured."""
    return hash_json(protocol["scoring"])


def protocol_hash(protocol: Protocol) -> str:
    """Return 12 hex digits over all parts."""
    return hash_json({part: protocol[part] for part in ("scoring", "generation", "generated") if part in protocol})


def score_protocol(
    score_set: "ScoreSet",
    scores: Sequence[str],
    reference: Mapping[str, str],
    generated: Mapping[str, str],
    captions: Mapping[str, str] | None,
    num_missing: int,
    num_extra: int,
    generation: Any,
) -> Protocol:
    """The protocol of a scoring.

    Args:
        score_set: networks and definitions.
        scores: names of the scores that were computed.
        reference: SHA-256 of each scored reference file, by name.
        generated: SHA-256 of its partner, by the same names.
        captions: by the same names, or None.
        num_missing: number of reference files without a partner, which were left out.
        num_extra: number of generated files without a reference, which were left out.
        generation: what is known of how the generated files were made; None if nothing is.
    """
    return {
        "scoring": {
            "kind": score_set.kind,
            "definition": score_set.definition(),
            "networks": score_set.describe(),
            "inputs": {score: list(score_set.inputs(score)) for score in scores},
            "reference": hash_json(dict(reference)),
            "captions": None if captions is None else hash_json({name: captions[name] for name in reference}),
            "num_clips": len(reference),
            "num_missing": num_missing,
        },
        "generation": generation,
        "generated": {"files": hash_json(dict(generated)), "num_extra": num_extra},
    }


def score_facts(protocol: Protocol, score: str) -> dict[str, Any]:
    """What one score of a protocol rests on: two numbers with equal facts may be compared."""
    scoring = protocol["scoring"]
    facts = {name: scoring[name] for name in _SHARED}
    for name in scoring["inputs"][score]:
        facts[name] = scoring["captions"] if name == "captions" else scoring["networks"][name]["fingerprint"]
    return facts

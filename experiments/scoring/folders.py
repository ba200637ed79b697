"""Scores with intervals of paired audio files, by any score set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.scoring.embedding_cache import BATCH_SIZE, digest_files, embed_files
from experiments.scoring.intervals import Replicates, interval
from experiments.scoring.pairs import FilePairs
from experiments.scoring.protocol import Protocol, protocol_hash, score_protocol, scoring_hash
from mntp.metrics.score_sets import Embeddings, ScoreSet


@dataclass(frozen=True)
class Evaluation:
    """What a scoring gave.

    Attributes:
        metrics: the scores by name, `intervals` (95 %, by name), `warnings`, `num_clips`, `coverage`, `missing`,
            `extra`, `judge`, `judge_kind`, and the protocol with its hashes.
        replicates: pseudo-values [n] of the scores whose differences may be tested.
    """

    metrics: dict[str, Any]
    replicates: dict[str, Replicates]


def evaluate_folders(
    pairs: FilePairs,
    captions: Mapping[str, str] | None,
    score_set: ScoreSet,
    cache: Path,
    generation: Any = None,
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """Score pairs of files.

    The order of files and the batch size don't change the scores beyond float32 rounding.

    Args:
        pairs: the files.
        captions: by the pairs' names, or None: then scores on captions are left out.
        score_set: networks and definitions.
        cache: folder of embeddings.
        generation: what is known of how the generated files were made, for the protocol.
        batch_size: files of equal length embedded at once.

    Raises:
        ValueError: a file is unreadable, empty or not finite (UnusableAudioError names all such files), or there are
            fewer than three files.
    """
    embeddings, digests = [], []
    for files, label in ((pairs.reference, "references"), (pairs.generated, "generated clips")):
        found = dict(zip(files, digest_files(list(files.values())), strict=True))
        digests.append(found)
        embeddings.append(embed_all(score_set, list(files.values()), list(found.values()), cache, batch_size, label))
    text = None if captions is None else score_set.embed_text([captions[name] for name in pairs.names])
    scores = score_set.compute(embeddings[0], embeddings[1], text)
    intervals = {name: interval(score.value, score.clips.numpy(), score.floor) for name, score in scores.items()}
    protocol = score_protocol(
        score_set, list(scores), digests[0], digests[1], captions, len(pairs.missing), len(pairs.extra), generation
    )
    metrics = {
        **{name: score.value for name, score in scores.items()},
        "intervals": {name: list(ends) for name, ends in intervals.items() if ends is not None},
        "warnings": score_set.warnings(len(pairs.names)),
        "num_clips": len(pairs.names),
        "judge": score_set.fingerprint(),
        "judge_kind": score_set.kind,
        "coverage": pairs.coverage,
        "missing": pairs.missing,
        "extra": pairs.extra,
        **protocol_entries(protocol),
    }
    replicates = {name: score.clips.numpy() for name, score in scores.items() if score.comparable and len(score.clips)}
    return Evaluation(metrics, replicates)


def protocol_entries(protocol: Protocol) -> dict[str, Any]:
    """A protocol with its hashes, as a result file holds them."""
    return {
        "scoring_hash": scoring_hash(protocol),
        "protocol_hash": protocol_hash(protocol),
        "protocol": protocol,
    }


def embed_all(
    score_set: ScoreSet, paths: Sequence[Path], digests: Sequence[str], cache: Path, batch_size: int, label: str
) -> Embeddings:
    """Embeddings of the same files by all networks of a score set."""
    found: Embeddings = {}
    for name, network in score_set.networks.items():
        found |= embed_files(network, paths, digests, cache, batch_size, f"{label} ({name})")
    return found

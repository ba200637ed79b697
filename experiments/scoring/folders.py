"""Two folders of sounds -> scores with intervals, by any score set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.scoring.embedding_cache import BATCH_SIZE, digest_files, hear
from experiments.scoring.intervals import Replicates, interval
from mntp.metrics.score_sets import Heard, ScoreSet

AUDIO_SUFFIXES = (".flac", ".wav")
_NUM_NAMES_SHOWN = 20


@dataclass(frozen=True)
class FilePairs:
    """Files to score.

    Attributes:
        names: those that both folders hold, sorted, each with a caption where captions are given.
        missing: reference files without a generated partner or caption, sorted; empty unless partial sets are allowed.
    """

    names: list[str]
    missing: list[str]

    @property
    def coverage(self) -> float:
        """Share of the reference files that are scored."""
        return len(self.names) / (len(self.names) + len(self.missing))


@dataclass(frozen=True)
class Evaluation:
    """What a scoring gave.

    Attributes:
        metrics: the scores by name, `intervals` (95 %, by name), `warnings`, `num_clips`, `judge`, `judge_kind`.
        replicates: pseudo-values [n] of the scores whose differences may be tested.
        reference_digests: SHA-256 of the reference files, in the order of the names.
    """

    metrics: dict[str, Any]
    replicates: dict[str, Replicates]
    reference_digests: list[str]


def pair_names(
    reference: Path, generated: Path, captions: Mapping[str, str] | None, allow_partial: bool = False
) -> FilePairs:
    """Pair the audio files of two folders by name.

    Raises:
        ValueError: a folder is missing or holds fewer than two audio files, the folders or the captions differ (unless
            partial sets are allowed), or fewer than two files are left.
    """
    in_reference, in_generated = audio_names(reference), audio_names(generated)
    if not allow_partial:
        _require(in_generated, in_reference, str(generated))
        _require(in_reference, in_generated, str(reference))
        if captions is not None:
            _require(captions, in_reference, "the captions table")
    names = in_reference & in_generated & (in_reference if captions is None else set(captions))
    if len(names) < 2:
        raise ValueError(f"{generated}: {len(names)} files have a partner in {reference}; expected at least 2")
    return FilePairs(sorted(names), sorted(in_reference - names))


def evaluate_folders(
    pairs: FilePairs,
    reference: Path,
    generated: Path,
    captions: Mapping[str, str] | None,
    score_set: ScoreSet,
    cache: Path,
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """Score the named files of two folders, which may hold more.

    The order of files and the batch size don't change the scores beyond float32 rounding.

    Args:
        pairs: the files.
        reference: their folder of references.
        generated: their folder of generated sounds.
        captions: by file name, or None: then scores on captions are left out.
        score_set: what hears and scores them.
        cache: folder of what was heard.
        batch_size: files of equal length heard at once.

    Raises:
        ValueError: a file is unreadable, empty or not finite (UnusableAudioError names all such files), or there are
            fewer than three files.
    """
    heard, digests = [], []
    for folder, label in ((reference, "references"), (generated, "generated clips")):
        paths = [folder / name for name in pairs.names]
        digests.append(digest_files(paths))
        heard.append(hear_all(score_set, paths, digests[-1], cache, batch_size, label))
    text = None if captions is None else score_set.embed_text([captions[name] for name in pairs.names])
    scores = score_set.compute(heard[0], heard[1], text)
    intervals = {name: interval(score.value, score.clips.numpy(), score.floor) for name, score in scores.items()}
    metrics = {
        **{name: score.value for name, score in scores.items()},
        "intervals": {name: list(ends) for name, ends in intervals.items() if ends is not None},
        "warnings": score_set.warnings(len(pairs.names)),
        "num_clips": len(pairs.names),
        "judge": score_set.fingerprint(),
        "judge_kind": score_set.kind,
    }
    replicates = {name: score.clips.numpy() for name, score in scores.items() if score.comparable and len(score.clips)}
    return Evaluation(metrics, replicates, digests[0])


def hear_all(
    score_set: ScoreSet, paths: Sequence[Path], digests: Sequence[str], cache: Path, batch_size: int, label: str
) -> Heard:
    """What all networks of a score set hear in the same files."""
    heard: Heard = {}
    for name, network in score_set.networks.items():
        heard |= hear(network, paths, digests, cache, batch_size, f"{label} ({name})")
    return heard


def audio_names(folder: Path) -> set[str]:
    """Names of the WAV and FLAC files of a folder, hidden ones and folders left out.

    Raises:
        ValueError: no such folder, or fewer than two files.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected a folder of WAV or FLAC files")
    names = {
        path.name
        for path in folder.iterdir()
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    }
    if len(names) < 2:
        raise ValueError(f"{folder}: holds {len(names)} WAV or FLAC files; a Frechet distance needs at least 2")
    return names


def _require(present: Iterable[str], wanted: Iterable[str], where: str) -> None:
    missing = sorted(set(wanted) - set(present))
    if missing:
        shown = ", ".join(missing[:_NUM_NAMES_SHOWN]) + (", ..." if len(missing) > _NUM_NAMES_SHOWN else "")
        raise ValueError(
            f"{where} lacks {len(missing)} files that the scores need ({shown}): both folders and the table must "
            "name the same files, or --allow-partial scores those that are there"
        )

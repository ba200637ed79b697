"""Which files of two folders are scored together: those whose names are equal but for the suffix."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

AUDIO_SUFFIXES = (".flac", ".wav")
_OTHER_SUFFIXES = (".aac", ".aif", ".aiff", ".m4a", ".mp3", ".ogg", ".opus")
_NUM_NAMES_SHOWN = 20


@dataclass(frozen=True)
class FilePairs:
    """Files to score.

    Attributes:
        reference: reference files by name, without suffix and in the order of names.
        generated: their partners, by the same names.
        missing: names of the reference files without a partner or caption; empty unless partial sets are allowed.
        extra: names of the generated files without a reference or caption; empty unless partial sets are allowed.
    """

    reference: dict[str, Path]
    generated: dict[str, Path]
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of the pairs, sorted."""
        return list(self.reference)

    @property
    def coverage(self) -> float:
        """Share of the reference files that are scored."""
        return len(self.reference) / (len(self.reference) + len(self.missing))


def clip_name(file: str) -> str:
    """Return the name that a file is paired by: without folders, and without the suffix of an audio format."""
    name = PurePosixPath(file).name
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and (dot + suffix).lower() in (*AUDIO_SUFFIXES, *_OTHER_SUFFIXES) else name


def captions_by_clip(captions: Mapping[str, str]) -> dict[str, str]:
    """Return captions by the name that files are paired by.

    Raises:
        ValueError: two files have the same name.
    """
    twice = [name for name, count in Counter(map(clip_name, captions)).items() if count > 1]
    if twice:
        raise ValueError(
            f"the captions name two files {_shown(twice)}, but for the suffix; expected one caption a clip"
        )
    return {clip_name(file): caption for file, caption in captions.items()}


def pair_files(
    reference: Path, generated: Path, captions: Mapping[str, str] | None = None, allow_partial: bool = False
) -> FilePairs:
    """Pair the WAV and FLAC files of two folders by name, whatever their suffixes.

    Args:
        reference: folder of references.
        generated: folder of generated files.
        captions: by name, as of `captions_by_clip`.
        allow_partial: leave out what has no partner.

    Raises:
        ValueError: a folder is missing, or holds fewer than two audio files or two of one name; the folders or the
            captions differ (unless partial sets are allowed); or fewer than two pairs are left.
    """
    references, others = audio_files(reference), audio_files(generated)
    if not allow_partial:
        _require(others, references, str(generated))
        _require(references, others, str(reference))
        if captions is not None:
            _require(captions, references, "the captions table")
    names = sorted(references.keys() & others.keys() & (references.keys() if captions is None else captions.keys()))
    if len(names) < 2:
        raise ValueError(f"{generated}: {len(names)} files have a partner in {reference}; expected at least 2")
    return FilePairs(
        {name: references[name] for name in names},
        {name: others[name] for name in names},
        sorted(references.keys() - names),
        sorted(others.keys() - names),
    )


def audio_files(folder: Path) -> dict[str, Path]:
    """WAV and FLAC files of a folder by name without suffix; hidden files and folders are left out.

    Raises:
        ValueError: no such folder, fewer than two files, or two of one name.
    """
    expected = "expected a folder of at least 2 WAV or FLAC files"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; {expected}")
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and not path.is_dir()]
    audio = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES]
    if len(audio) < 2:
        others = sorted({path.suffix.lower() for path in paths} & set(_OTHER_SUFFIXES))
        remedy = f"; convert its {', '.join(others)} files to WAV or FLAC" if others else ""
        raise ValueError(f"{folder}: holds {len(audio)} WAV or FLAC files; {expected}{remedy}")
    twice = sorted(name for name, count in Counter(clip_name(path.name) for path in audio).items() if count > 1)
    if twice:
        raise ValueError(
            f"{folder}: holds two files of the name {_shown(twice)}, but for the suffix; keep one of each, because "
            "files are paired by name without suffix"
        )
    return {clip_name(path.name): path for path in audio}


def _require(present: Collection[str], wanted: Collection[str], where: str) -> None:
    missing = sorted(set(wanted) - set(present))
    if not missing:
        return
    by_lower = {name.lower(): name for name in present}
    alike = [name for name in missing if name.lower() in by_lower]
    hint = f"; {alike[0]} is called {by_lower[alike[0].lower()]} there" if alike else ""
    raise ValueError(
        f"{where} lacks {len(missing)} of the clips to score ({_shown(missing)}{hint}): both folders and the captions "
        "must name the same clips, or --allow_partial scores those that all have"
    )


def _shown(names: Collection[str]) -> str:
    return ", ".join(list(names)[:_NUM_NAMES_SHOWN]) + (", ..." if len(names) > _NUM_NAMES_SHOWN else "")

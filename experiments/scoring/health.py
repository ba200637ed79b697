"""What is wrong with the audio of two folders before they are scored: one line for each kind of fault.

A score doesn't show whether files were silent, copies of one clip, or of another sample rate than the references. So
faults are refused, unless they are allowed; then they are counted in the result.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from experiments.scoring.embedding_cache import UnusableAudioError
from experiments.scoring.pairs import FilePairs
from mntp.audio.files import AudioError
from mntp.io.progress import show_progress

MIN_CLIPS = 10
MIN_SECONDS = 0.05
SILENCE = 10 ** (-80 / 20)
"""Greatest deviation from the mean, where full scale is 1, below which a channel is silent: -80 dB, three steps of 16
bits."""
LENGTH_TOLERANCE = 0.05
"""Share of the reference's length. Models that make whole tokens make clips of 10.24 s for references of 10 s."""
_NUM_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Clip:
    """Facts of an audio file.

    Attributes:
        seconds: length.
        sample_rate: in Hz.
        num_channels: 1 for mono.
        silent_channels: whether each channel is silent.
        content: hash of the first channel's samples, whatever the file's format.
    """

    seconds: float
    sample_rate: int
    num_channels: int
    silent_channels: tuple[bool, ...]
    content: str


@dataclass(frozen=True)
class Fault:
    """A kind of fault that some clips have.

    Attributes:
        kind: its name.
        num_clips: number of clips that have it.
        line: what is wrong, with the first names.
    """

    kind: str
    num_clips: int
    line: str


@dataclass(frozen=True)
class Health:
    """What was found in two folders.

    Attributes:
        faults: in a fixed order of kinds.
        reference_seconds: length of the shortest and of the longest reference.
        generated_seconds: the same of the generated files.
    """

    faults: tuple[Fault, ...]
    reference_seconds: tuple[float, float]
    generated_seconds: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        return asdict(self)

    def require(self) -> None:
        """Refuse faults.

        Raises:
            ValueError: there are some; the message names each.
        """
        if self.faults:
            found = "; ".join(f"{number}. {fault.line}" for number, fault in enumerate(self.faults, start=1))
            raise ValueError(
                f"faults in the audio, which a score wouldn't show: {found}: mend the folders, or score them as they "
                "are with --allow_faults, which records the faults in the result"
            )


def check_health(pairs: FilePairs) -> Health:
    """Look for faults in the files of two folders.

    Raises:
        UnusableAudioError: some files are unreadable, empty or not finite.
    """
    reference, generated = _read_all(pairs.reference, "references"), _read_all(pairs.generated, "generated clips")
    faults = [
        *_of_numbers(pairs),
        *_of_folder("reference", reference),
        *_of_folder("generated", generated),
        *_of_pairs(reference, generated),
    ]
    return Health(tuple(faults), _range(reference), _range(generated))


def read_facts(path: Path) -> Clip:
    """Read a file's facts.

    Raises:
        AudioError: the file is missing, unreadable, empty, or holds a sample that is not finite.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError, OSError) as error:
        reason = getattr(error, "error_string", str(error))
        raise AudioError(f"{path}: not readable as audio ({reason}); convert it to WAV or FLAC") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: holds 0 samples; remove it or replace it")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds samples that are not finite numbers; remove it or replace it")
    silent = np.abs(samples - samples.mean(0)).max(0) < SILENCE
    content = hashlib.sha256(samples[:, 0].tobytes()).hexdigest()
    return Clip(len(samples) / rate, rate, samples.shape[1], tuple(silent.tolist()), content)


def _read_all(paths: Mapping[str, Path], label: str) -> dict[str, Clip]:
    clips, problems = {}, []
    for name, path in show_progress(paths.items(), f"checking {label}", len(paths)):
        try:
            clips[name] = read_facts(path)
        except AudioError as problem:
            problems.append(problem)
    if problems:
        raise UnusableAudioError(problems, len(paths))
    return clips


def _of_numbers(pairs: FilePairs) -> list[Fault]:
    faults = []
    if len(pairs.names) < MIN_CLIPS:
        line = (
            f"{len(pairs.names)} pairs of clips, expected at least {MIN_CLIPS}: distances and intervals of so few say "
            "nothing, and the inception score over 10 splits is left out; add clips"
        )
        faults.append(Fault("few clips", len(pairs.names), line))
    return faults


def _of_folder(side: str, clips: Mapping[str, Clip]) -> list[Fault]:
    found: list[tuple[str, Callable[[Clip], bool], str]] = [
        ("silent", lambda clip: all(clip.silent_channels), "are silent (below -80 dB of full scale)"),
        (
            "silent first channel",
            lambda clip: clip.silent_channels[0] and not all(clip.silent_channels),
            "have sound in other channels than the first, which alone is scored; mix them down",
        ),
        ("short", lambda clip: clip.seconds < MIN_SECONDS, f"are shorter than {MIN_SECONDS} s"),
    ]
    faults: list[Fault] = []
    for kind, holds, text in found:
        names = [name for name, clip in clips.items() if holds(clip)]
        faults += _fault(f"{side}, {kind}", names, len(clips), f"{side} clips {text}")
    first: dict[str, str] = {}
    copies = [name for name, clip in clips.items() if first.setdefault(clip.content, name) != name]
    if copies and len(first) == 1:
        line = f"all {len(clips)} {side} clips are the same sound"
        faults.append(Fault(f"{side}, one sound", len(clips), line))
    else:
        pairs = [f"{name} = {first[clips[name].content]}" for name in copies]
        faults += _fault(f"{side}, copies", pairs, len(clips), f"{side} clips are copies of others")
    rates = Counter(clip.sample_rate for clip in clips.values())
    if len(rates) > 1:
        usual = rates.most_common(1)[0][0]
        names = [name for name, clip in clips.items() if clip.sample_rate != usual]
        text = f"{side} clips have another sample rate than the others' {usual} Hz"
        faults += _fault(f"{side}, mixed sample rates", names, len(clips), text)
    return faults


def _of_pairs(reference: Mapping[str, Clip], generated: Mapping[str, Clip]) -> list[Fault]:
    pairs = {name: (clip, generated[name]) for name, clip in reference.items()}
    found: list[tuple[str, Callable[[Clip, Clip], bool], str]] = [
        (
            "sample rate",
            lambda one, two: one.sample_rate != two.sample_rate,
            "pairs differ in sample rate, and resampling one side alone moves scores; convert both sides from one "
            "rate to another in the same way",
        ),
        (
            "channels",
            lambda one, two: one.num_channels != two.num_channels,
            "pairs differ in the number of channels, of which the first alone is scored; mix both sides down",
        ),
        (
            "length",
            lambda one, two: abs(one.seconds - two.seconds) > LENGTH_TOLERANCE * one.seconds,
            f"pairs differ in length by more than {LENGTH_TOLERANCE:.0%} of the reference; cut or make both alike",
        ),
    ]
    faults: list[Fault] = []
    for kind, differ, text in found:
        names = [name for name, pair in pairs.items() if differ(*pair)]
        faults += _fault(f"pairs, {kind}", names, len(pairs), text)
    same = [name for name, (one, two) in pairs.items() if one.content == two.content]
    if len(same) < len(pairs):  # a whole folder against itself is a question of its own, not a mistake
        faults += _fault("pairs, copied reference", same, len(pairs), "generated clips are their own references")
    return faults


def _fault(kind: str, names: list[str], num_clips: int, text: str) -> Iterable[Fault]:
    if names:
        more = ", ..." if len(names) > _NUM_NAMES_SHOWN else ""
        shown = f"{', '.join(names[:_NUM_NAMES_SHOWN])}{more}"
        yield Fault(kind, len(names), f"{len(names)} of {num_clips} {text} ({shown})")


def _range(clips: Mapping[str, Clip]) -> tuple[float, float]:
    seconds = [round(clip.seconds, 4) for clip in clips.values()]
    return min(seconds), max(seconds)

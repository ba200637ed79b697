"""Sounds for the report: the same test clips in every scoring, as small files inside the page, with spectrograms."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from numpy.typing import NDArray

from data_modules.store.clips import CLIPS, read_clips
from experiments.ablate.plan.plan_file import Plan
from experiments.ablate.results.table import Result
from experiments.config.nodes import look_up
from experiments.runs.state import DONE, eval_folder
from mntp.io.storage import Folder

NUM_FFT, HOP = 512, 160
NUM_BANDS, RANGE_DB, MAX_COLUMNS = 64, 80.0, 320
AUDIO_TYPES = {"MP3": "audio/mpeg", "FLAC": "audio/flac"}  # what libsndfile may write and every browser plays

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """A finished scoring whose sounds can be heard.

    Attributes:
        label: labels of the cells that it answers.
        description: of the first of them.
        folder: of its sounds.
    """

    label: str
    description: str
    folder: Path


@dataclass(frozen=True)
class Sound:
    """One clip of one scoring: data URIs of sound and spectrogram, or why there are none."""

    label: str
    description: str
    audio: str = ""
    spectrogram: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Prompt:
    """A test clip: its name, its caption (empty where it isn't known), and what every scoring made of it."""

    name: str
    caption: str
    sounds: tuple[Sound, ...]


def heard_prompts(plan: Plan, results: Iterable[Result], most: int, max_bytes: int) -> tuple[list[Prompt], str]:
    """Choose test clips that all finished scorings have, and encode what each made of them.

    Args:
        plan: where the split comes from.
        results: of all tables that were asked for.
        most: clips to choose, evenly from all.
        max_bytes: what sounds and pictures may weigh together. Whole clips are left out to stay below it, and
            scorings from the end of the list where one clip of all of them is too much.

    Returns:
        The clips, and a sentence about what was left out; empty if nothing was.
    """
    done = [result for result in results if result.state.state == DONE]
    store = _store(done)
    sources = _sources(done, plan, store)
    names = _common_names([source.folder for source in sources])
    chosen = [names[index * len(names) // min(most, len(names))] for index in range(min(most, len(names)))]
    captions = _captions(store)
    prompts: list[Prompt] = []
    room = max_bytes
    for name in chosen:
        sounds, weight = _sounds(sources, name, room)
        room -= weight
        if len(sounds) == len(sources) or not prompts:
            prompts.append(Prompt(name, captions.get(name, ""), tuple(sounds)))
        if room < 0:
            break
    return prompts, _left_out(len(chosen), prompts, sources, max_bytes)


def _sounds(sources: Sequence[Source], name: str, room: int) -> tuple[list[Sound], int]:
    """What the scorings made of one clip, as many as `room` bytes hold; and what they weigh with the one too many."""
    sounds, weight = list[Sound](), 0
    for source in sources:
        sound = _sound(source, name)
        weight += len(sound.audio) + len(sound.spectrogram)
        if weight > room:
            break
        sounds.append(sound)
    return sounds, weight


def _left_out(num_chosen: int, prompts: Sequence[Prompt], sources: Sequence[Source], max_bytes: int) -> str:
    cap = f"the cap of {max_bytes / 1e6:g} MB (--max-mb)"
    if prompts and len(prompts[0].sounds) < len(sources):
        names = ", ".join(source.label for source in sources[len(prompts[0].sounds) :])
        return f"Left out to stay below {cap}: all prompts but one, and {names}."
    return f"{len(prompts)} of {num_chosen} prompts, to stay below {cap}." if len(prompts) < num_chosen else ""


def _sources(done: Sequence[Result], plan: Plan, store: Path | None) -> list[Source]:
    """Finished scorings, each once, with a folder of sounds; the ground truth's is the store's."""
    found: dict[Path, list[Result]] = {}
    for result in done:
        scoring = eval_folder(Path(result.cell.run_dir), result.cell.protocol_hash)
        folder = scoring / "wav"
        if result.cell.source == "ground_truth" and store is not None:
            split = plan.protocols[result.cell.protocol_hash]["scoring"]["split"]
            folder = store / "audio" / split
        found.setdefault(folder, []).append(result)
    return [
        Source(" = ".join(dict.fromkeys(map(_name, results))), results[0].cell.description, folder)
        for folder, results in found.items()
        if folder.is_dir()
    ]


def _name(result: Result) -> str:
    """A cell's label; a reference's row, which is in every table."""
    return result.cell.row if result.cell.reference else result.cell.label


def _store(done: Sequence[Result]) -> Path | None:
    """The folder of the prepared data, which all scorings of a plan share, as a run's config names it."""
    for result in done:
        path = Path(result.cell.run_dir) / "config.yaml"
        if path.is_file():
            store = look_up(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, "data.store")
            return Path(store) if store else None
    return None


def _captions(store: Path | None) -> dict[str, str]:
    """Captions by file name; none where the store is not at hand."""
    if store is None or not (store / CLIPS).is_file():
        return {}
    return {f"{clip.id}.wav": clip.caption for clip in read_clips(Folder(store))}


def _common_names(folders: Sequence[Path]) -> list[str]:
    names = [{path.name for path in folder.glob("*.wav")} for folder in folders]
    return sorted(set.intersection(*names)) if names else []


def _sound(source: Source, name: str) -> Sound:
    try:
        samples, rate = soundfile.read(source.folder / name, dtype="float32", always_2d=True)
        audio, kind = encoded(samples[:, 0], rate)
        picture = spectrogram_jpeg(samples[:, 0])
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        return Sound(source.label, source.description, problem=f"{name} can't be read: {error}")
    return Sound(source.label, source.description, data_uri(audio, kind), data_uri(picture, "image/jpeg"))


def encoded(samples: Samples, rate: int) -> tuple[bytes, str]:
    """Return sound [samples] as a small file that browsers play, and its media type."""
    kind = next(kind for kind in AUDIO_TYPES if kind in soundfile.available_formats())
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue(), AUDIO_TYPES[kind]


def spectrogram_jpeg(samples: Samples) -> bytes:
    """Return a picture of the log magnitudes of sound [samples]: time to the right, 64 bands wider towards the top.

    Raises:
        ValueError: the sound is shorter than one frame.
    """
    if len(samples) < NUM_FFT:
        raise ValueError(f"{len(samples)} samples; a spectrogram needs {NUM_FFT}")
    from matplotlib.image import imsave

    frames = np.lib.stride_tricks.sliding_window_view(samples, NUM_FFT)[::HOP]
    magnitudes = np.abs(np.fft.rfft(frames * np.hanning(NUM_FFT)))  # [frames, bins]
    edges = np.unique(np.geomspace(1, magnitudes.shape[1], NUM_BANDS + 1).round().astype(int))
    bands = np.add.reduceat(magnitudes, edges[:-1], axis=1) / np.diff(edges)
    columns = np.array_split(bands, min(MAX_COLUMNS, len(bands)))
    decibels = 20 * np.log10(np.maximum([column.mean(axis=0) for column in columns], 1e-5))
    rows = np.repeat(decibels.T, 2, axis=0)
    top = max(float(rows.max()), -20.0)  # silence stays dark
    picture = io.BytesIO()
    quality: Any = {"quality": 75}
    imsave(picture, rows, cmap="magma", vmin=top - RANGE_DB, vmax=top, origin="lower", format="jpg", pil_kwargs=quality)
    return picture.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Return a file's content as an address that stands for itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

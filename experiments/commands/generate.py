"""`mntp generate`: sound from captions and a trained model; `mntp export`: the model as a folder of its own."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_modules.captions.by_file import captions_by_name
from data_modules.captions.rows import read_csv, read_prompts
from data_modules.store.store import is_store
from experiments.runs.run_or_store import store_captions
from experiments.scoring.pairs import captions_by_clip, clip_name
from experiments.scoring.protocol import GENERATION
from mntp.audio.files import read_audio, write_audio
from mntp.inference.text_to_audio import TextToAudio, assign_seeds
from mntp.io.files import atomic_write, file_sha256
from mntp.io.fingerprint import hash_tensors
from mntp.io.json_lines import read_json, write_json
from mntp.io.nested import differing

CLIPS = "clips.csv"
"""Beside generated sounds: file, caption and seed of each."""

_COLUMNS = ("file", "caption", "seed")


@dataclass(frozen=True)
class Clip:
    """A sound that is to be made, or that is there already.

    Attributes:
        file: name of its WAV file.
        caption: what should be heard.
        seed: of its noise, a function of `--seed`, the caption, and how often it came before.
    """

    file: str
    caption: str
    seed: int


@dataclass(frozen=True)
class Prompt:
    """A caption, and the name of the file to write without its suffix; empty for a name made of the caption."""

    caption: str
    name: str = ""


def generate(
    ckpt: Path,
    captions: list[str] | None = None,
    prompts: Path | None = None,
    out: Path = Path("generated"),
    seed: int = 0,
    batch_size: int = 8,
    seconds: float | None = None,
    continue_from: Path | None = None,
    solver: str | None = None,
    num_steps: int | None = None,
    tokens_per_call: int | None = None,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    bfloat16: bool | None = None,
) -> None:
    """Generate one WAV file for each caption, and generation.json and clips.csv, which say how they were made.

    Args:
        ckpt: a run's folder (its final or newest checkpoint is taken), a checkpoint file, or what `mntp export` wrote.
        captions: what should be heard.
        prompts: captions from elsewhere: a text file with one a line; a CSV table with a column `caption`, whose column
            `file` or `id` then names the WAV files, so that `mntp evaluate` finds the partner of each; JSON {file:
            caption}; or a store, for its test split.
        out: folder of the WAV files, named by number and caption where they have no names of their own. Files that are
            there already and were made in the same way are kept: the same command goes on where it was stopped. Files
            made in another way are refused.
        seed: same seed, caption and checkpoint, same sound.
        batch_size: captions at once; it moves the last bits of a sound and no more.
        seconds: length of the sounds, a multiple of the tokenizer's time slice; that of the training clips if left out.
        continue_from: an audio file that every sound begins with.
        solver: of the head, instead of the run's own.
        num_steps: of the solver for one token, instead of the run's own.
        tokens_per_call: asked at once, instead of the run's own; AudioMNTP alone.
        guidance_scale: instead of the run's own.
        temperature: instead of the run's own.
        bfloat16: matrix products in bfloat16, which is faster; by default on a GPU.

    Raises:
        ValueError: no usable checkpoint, no caption or one without words, a length that can't be made, or a folder
            with sounds that were made in another way.
    """
    if batch_size < 1:
        raise ValueError(f"--batch_size: got {batch_size}, expected at least 1")
    asked = _prompts(captions or [], prompts)
    texts = [prompt.caption for prompt in asked]
    model = TextToAudio.from_pretrained(ckpt, bfloat16=bfloat16)
    sampling = _given(solver=solver, num_steps=num_steps, temperature=temperature)
    overrides = _given(tokens_per_call=tokens_per_call, guidance_scale=guidance_scale)
    decoding = model.decoding(sampling=sampling, **overrides)
    prefix = None if continue_from is None else read_audio(continue_from, model.sample_rate)
    model.check(len(texts), seconds, prefix)
    preprocessing = model.system.preprocessing or {}
    about = {
        "system": type(model.system).__name__,
        "weights": hash_tensors(model.system.state_dict()),
        "decoding": asdict(decoding),
        "bfloat16": model.bfloat16,
        "seed": seed,
        "seconds": model.max_seconds if seconds is None else seconds,
        "continue_from": None if continue_from is None else file_sha256(continue_from),
        "tokenizer": preprocessing["tokenizer"]["fingerprint"],
        "text": preprocessing["text"]["fingerprint"],
    }
    clips = _planned(asked, seed)
    out.mkdir(parents=True, exist_ok=True)
    missing = _open_folder(out, about, clips)
    console = Console()
    if len(missing) < len(clips):
        _print(Console(stderr=True), f"{out}: {len(clips) - len(missing)} of {len(clips)} sounds are there already")
    columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("clips", total=len(clips))
        # Always the same batches, whatever is there already: a batch's size moves the last bits of its clips.
        for first in range(0, len(clips), batch_size):
            batch = clips[first : first + batch_size]
            if missing.isdisjoint(clip.file for clip in batch):
                waveforms = []
            else:
                waveforms = model.generate(
                    [clip.caption for clip in batch],
                    [clip.seed for clip in batch],
                    len(batch),
                    seconds,
                    prefix,
                    decoding,
                    lambda drawn, total: bar.update(task, completed=first + drawn / total * len(batch)),  # noqa: B023  # called at once
                )
            for number, clip in enumerate(batch):
                if clip.file in missing:
                    write_audio(out / clip.file, waveforms[number], model.sample_rate)
                _print(console, str(out / clip.file))
            bar.update(task, completed=first + len(batch))


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def export(ckpt: Path, out: Path) -> None:
    """Write a trained model as config.json and model.safetensors.

    Args:
        ckpt: a run's folder (its final or newest checkpoint is taken) or a checkpoint file.
        out: the folder to write; an exported model there is replaced.

    Raises:
        ValueError: no usable checkpoint, or a folder that holds other files.
    """
    TextToAudio.from_pretrained(ckpt, "cpu").save_pretrained(out)
    _print(Console(), str(out))


def file_name(caption: str) -> str:
    """A caption as part of a file name: word characters only, at most 60."""
    return re.sub(r"\W+", "_", caption).strip("_")[:60] or "clip"


def _print(console: Console, line: str) -> None:
    """A line as it is: no markup in captions and paths, and no breaks."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _prompts(captions: list[str], prompts: Path | None) -> list[Prompt]:
    """Captions of the line, or of a file, whose empty lines are left out and counted."""
    if prompts is None:
        if not captions:
            raise ValueError('mntp generate: no captions; expected "a caption" ..., or --prompts FILE')
        return [Prompt(caption) for caption in captions]
    if captions:
        raise ValueError(f"mntp generate: got captions and --prompts {prompts}; expected one of the two")
    if is_store(prompts):
        return [Prompt(caption, name) for name, caption in store_captions(prompts).items()]
    if prompts.suffix.lower() == ".json":
        by_name = captions_by_clip(captions_by_name(prompts, prompts.parent))
        return [Prompt(caption, name) for name, caption in by_name.items()]
    texts, num_empty = read_prompts(prompts)
    if num_empty:
        _print(Console(stderr=True), f"{prompts}: {len(texts)} captions; empty lines left out: {num_empty}")
    names = _names(prompts) if prompts.suffix.lower() == ".csv" else [""] * len(texts)
    return [Prompt(caption, name) for caption, name in zip(texts, names, strict=True)]


def _names(table: Path) -> list[str]:
    """Names from a table's column `file`, or else `id`, for each row with a caption; empty ones without such a column.

    Raises:
        ValueError: a name is empty or hidden, or comes twice.
    """
    names: dict[str, int] = {}
    rows = [(line, cells) for line, cells in read_csv(table, ("caption",)) if cells["caption"].strip()]
    column = next((name for name in ("file", "id") if name in rows[0][1]), None)
    if column is None:
        return [""] * len(rows)
    for line, cells in rows:
        name = clip_name(cells[column].strip())
        if not name or name.startswith(".") or "\0" in name:
            raise ValueError(
                f"{table}, line {line}: {column} {cells[column]!r} can't name a file; expected a file name"
            )
        if name in names:
            raise ValueError(
                f"{table}, line {line}: a second {column} named {name} (line {names[name]}), folders and suffix aside; "
                "expected one row a file"
            )
        names[name] = line
    return list(names)


def _planned(prompts: list[Prompt], seed: int) -> list[Clip]:
    width = max(3, len(str(len(prompts) - 1)))
    seeds = assign_seeds([prompt.caption for prompt in prompts], seed)
    names = [prompt.name or f"{number:0{width}d}-{file_name(prompt.caption)}" for number, prompt in enumerate(prompts)]
    return [Clip(f"{name}.wav", prompt.caption, one) for name, prompt, one in zip(names, prompts, seeds, strict=True)]


def _open_folder(out: Path, about: dict[str, Any], clips: list[Clip]) -> set[str]:
    """Write down what is going to be made; return the files that are missing.

    Raises:
        ValueError: the folder holds sounds that were made in another way, or of other captions under the same names.
    """
    before, about = read_json(out / GENERATION), json.loads(json.dumps(about))  # alike: lists for tuples
    if before and (differences := [f"{key}: {there} there, {now} now" for key, now, there in differing(about, before)]):
        raise ValueError(
            f"{out}: holds sounds that were made in another way ({'; '.join(differences)}); name another folder with "
            "--out"
        )
    recorded = {clip.file: clip for clip in _read_clips(out / CLIPS)} if before else {}
    there = {path.name for path in out.glob("*.wav")}
    for clip in clips:
        if clip.file in there and recorded.get(clip.file) != clip:
            known = recorded[clip.file].caption if clip.file in recorded else None
            what = "nothing says how it was made" if known is None else f"it is another sound, of {known!r}"
            raise ValueError(f"{out / clip.file}: is there already, and {what}; name another folder with --out")
    every = {**recorded, **{clip.file: clip for clip in clips}}
    with atomic_write(out / CLIPS) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((clip.file, clip.caption, clip.seed) for _, clip in sorted(every.items()))
    write_json(out / GENERATION, about)
    return {clip.file for clip in clips} - there


def _read_clips(table: Path) -> Iterator[Clip]:
    if table.is_file():
        for _, cells in read_csv(table, _COLUMNS):
            yield Clip(cells["file"], cells["caption"], int(cells["seed"]))

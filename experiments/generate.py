"""`mntp generate`: sound from captions and a trained run."""

import re
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from experiments.protocol import GENERATION
from experiments.run_record import write_json
from mntp.audio import write_audio
from mntp.batch import TextStates
from mntp.files import file_sha256
from mntp.seeding import derive_seed
from mntp.systems import load_system
from mntp.text import build_text_encoder
from mntp.tokenizers import build_tokenizer


def generate(captions: list[str], ckpt: Path, out: Path = Path("generated"), seed: int = 0) -> None:
    """Generate one WAV file for each caption, and generation.json, which says how they were made.

    Args:
        captions: what should be heard.
        ckpt: a run's folder (its final or newest checkpoint is taken) or a checkpoint file.
        out: folder of the WAV files, named by number and caption.
        seed: same seed, caption and checkpoint, same file.

    Raises:
        ValueError: no usable checkpoint, or a caption without words.
    """
    checkpoint = find_checkpoint(ckpt)
    system = load_system(checkpoint)
    if system.front_end is None:
        raise ValueError(f"{ckpt}: the checkpoint holds no tokenizer; it was not trained on prepared data")
    tokenizer = build_tokenizer(system.front_end["tokenizer"])
    streams = build_text_encoder(system.front_end["text"]).encode(captions)
    system.to("cuda" if torch.cuda.is_available() else "cpu")
    # A caption that comes twice is drawn twice.
    seeds = [derive_seed("generate", seed, caption, captions[:n].count(caption)) for n, caption in enumerate(captions)]
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "system": type(system).__name__,
        "checkpoint_sha256": file_sha256(checkpoint),
        "decoding": asdict(system.decoding),
        "seed": seed,
        "tokenizer": system.front_end["tokenizer"]["fingerprint"],
    }
    write_json(out / GENERATION, about)
    console = Console()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("tokens", total=system.num_tokens * len(captions))
        for number, caption in enumerate(captions):  # one by one: a clip's bits never depend on its neighbours
            text = {name: _one(states[number].to(system.device)) for name, states in streams.items()}
            done = number * system.num_tokens
            tokens = system.generate(text, [seeds[number]], lambda drawn, _: bar.update(task, completed=done + drawn))  # noqa: B023  # called at once
            path = out / f"{number:03d}-{file_name(caption)}.wav"
            write_audio(path, tokenizer.decode(tokens.cpu())[0])
            console.print(str(path), highlight=False, markup=False, soft_wrap=True)


def _one(states: Tensor) -> TextStates:
    """States [L, dim] of one caption as a batch."""
    return TextStates(states[None], torch.tensor([len(states)], device=states.device))


def find_checkpoint(path: Path) -> Path:
    """The file itself, or the final checkpoint of a run's folder, or else the newest one below the folder.

    Raises:
        ValueError: there is none.
    """
    if path.is_file():
        return path
    final = path / "checkpoints" / "final.ckpt"
    if final.is_file():
        return final
    found = sorted(path.rglob("*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise ValueError(f"{path}: no checkpoint there; expected a .ckpt file or a run's folder")
    return found[-1]


def file_name(caption: str) -> str:
    """A caption as part of a file name: word characters only, at most 60."""
    return re.sub(r"\W+", "_", caption).strip("_")[:60] or "clip"

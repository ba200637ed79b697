"""Sampling and scoring of a trained run, or of a reference, under one protocol."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from callbacks import ProgressFile
from data_modules.latents import ClipDataset, collate
from data_modules.store import Store
from experiments.evaluate import evaluate_names
from experiments.run_record import provenance, read_json, write_json
from experiments.shared import data_module, judge_of
from mntp.audio import write_audio
from mntp.seeding import derive_seed
from mntp.systems import AudioSystem, load_system
from mntp.tokenizers import build_tokenizer

Decode = Callable[[Sequence[int]], Tensor]  # rows of the store -> waveforms [B, samples]


def score(
    run_dir: Path,
    config: dict[str, Any],
    protocol_hash: str,
    rules: dict[str, Any],
    judges: Path,
    progress: ProgressFile,
) -> None:
    """Write the clips that are missing, score them all, and write `metrics.json`, whose presence means done.

    Raises:
        ValueError: the data or the judge is not the one that the protocol names.
    """
    folder = run_dir / "evals" / protocol_hash
    if (folder / "metrics.json").is_file():
        return
    store = data_module(config).store
    judge = judge_of(config, judges)
    for name, found in (("store", store.fingerprint), ("judge", judge.fingerprint())):
        if rules[name] != found:
            raise ValueError(f"{run_dir}: the protocol asks for {name} {rules[name]}, found {found}: plan again")
    rows = store.split(rules["split"])[: rules["num_clips"]]
    began = time.monotonic()
    generated = _generated(run_dir, folder, store, rows, rules, progress)
    sampled = time.monotonic()
    progress.write("scoring", 0, 1)
    captions = {store.audio_path(row).name: store.clips[row].caption for row in rows}
    metrics = evaluate_names(
        sorted(captions),
        store.audio_path(rows[0]).parent,
        generated,
        captions,
        judge,
        in_domain=config["data"]["corpus"] is not None,
    )
    scored = time.monotonic()
    times = {"sample_seconds": sampled - began, "score_seconds": scored - sampled}
    write_json(folder / "score.json", {**times, **provenance()})
    held_out = read_json(run_dir / "run.json").get("held_out", {}) if rules["source"] == "model" else {}
    write_json(folder / "metrics.json", {**metrics, **held_out})


def _generated(
    run_dir: Path, folder: Path, store: Store, rows: list[int], rules: dict[str, Any], progress: ProgressFile
) -> Path:
    """Folder of the clips to score; missing ones are made, a batch at a time."""
    if rules["source"] == "ground_truth":
        return store.audio_path(rows[0]).parent
    wav = folder / "wav"
    wav.mkdir(parents=True, exist_ok=True)
    # Always the same batches, whatever was there already: a batch's size moves the last bits of its clips.
    batches = [rows[first : first + rules["batch_size"]] for first in range(0, len(rows), rules["batch_size"])]
    missing = [batch for batch in batches if not all((wav / store.audio_path(row).name).is_file() for row in batch)]
    if missing:
        decode = _decoder(run_dir, store, rules, progress)
        for batch in missing:
            for row, waveform in zip(batch, decode(batch), strict=True):
                write_audio(wav / store.audio_path(row).name, waveform)
    return wav


def _decoder(run_dir: Path, store: Store, rules: dict[str, Any], progress: ProgressFile) -> Decode:
    """What turns rows of the store into waveforms: the trained model, or the tokenizer alone."""
    tokenizer = build_tokenizer(store.front_end()["tokenizer"])
    if rules["source"] == "reconstruction":
        return lambda rows: tokenizer.decode(torch.stack([store.tokens(row) for row in rows]))
    system = load_system(run_dir / "checkpoints" / "final.ckpt")
    system.decoding = type(system.decoding).from_dict(rules["decoding"])
    system.to("cuda" if torch.cuda.is_available() else "cpu")
    return lambda rows: tokenizer.decode(_tokens(system, store, rows, rules, progress).cpu())


def _tokens(
    system: AudioSystem, store: Store, rows: Sequence[int], rules: dict[str, Any], progress: ProgressFile
) -> Tensor:
    dataset = ClipDataset(store, rules["split"])
    places = {row: place for place, row in enumerate(dataset.rows)}
    batch = system.transfer_batch_to_device(collate([dataset[places[row]] for row in rows]), system.device, 0)
    seeds = [derive_seed(rules["seed"], "clip", row) for row in rows]
    return system.generate(batch.text, seeds, lambda drawn, total: progress.write("sampling", drawn, total))

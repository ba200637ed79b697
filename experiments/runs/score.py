"""Sampling and scoring of a trained run, or of a reference, under one protocol."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from callbacks import ProgressFile
from data_modules.latents import ClipDataset, collate
from data_modules.store.store import Store
from experiments.runs.data import data_module, score_set_of
from experiments.runs.record import HELD_OUT, provenance
from experiments.scoring.folders import FilePairs, evaluate_folders
from experiments.scoring.intervals import REPLICATES, interval, write_replicates
from experiments.scoring.protocol import Protocol, scoring_hash
from mntp.audio.files import write_audio
from mntp.inference.checkpoint import load_system
from mntp.io.json_lines import write_json
from mntp.metrics.jackknife import ratio_pseudo_values
from mntp.seeding import derive_seed
from mntp.systems import AudioSystem
from mntp.tokenizers import build_tokenizer

Decode = Callable[[Sequence[int]], Tensor]  # rows of the store -> waveforms [B, samples]


def score(
    run_dir: Path,
    config: dict[str, Any],
    protocol_hash: str,
    protocol: Protocol,
    judges: Path,
    weights: Path,
    progress: ProgressFile,
) -> None:
    """Write the clips that are missing, score them all, and write `metrics.json`, whose presence means done.

    Raises:
        ValueError: the data or the judge is not the one that the protocol names.
    """
    folder = run_dir / "evals" / protocol_hash
    if (folder / "metrics.json").is_file():
        return
    scoring, generation = protocol["scoring"], protocol["generation"]
    store = data_module(config).store
    score_set = score_set_of(config, scoring["kind"], judges, weights)
    for name, found in (("store", store.fingerprint), ("judge", score_set.fingerprint())):
        if scoring[name] != found:
            raise ValueError(f"{run_dir}: the protocol asks for {name} {scoring[name]}, found {found}: plan again")
    rows = store.split(scoring["split"])[: scoring["num_clips"]]
    began = time.monotonic()
    generated = _generated(run_dir, folder, store, rows, protocol, progress)
    sampled = time.monotonic()
    progress.write("scoring", 0, 1)
    captions = {store.audio_path(row).name: store.clips[row].caption for row in rows}
    evaluation = evaluate_folders(
        FilePairs(sorted(captions), []),
        store.audio_path(rows[0]).parent,
        generated,
        captions,
        score_set,
        judges / "features",
    )
    scored = time.monotonic()
    metrics, replicates = evaluation.metrics, evaluation.replicates
    if generation["source"] == "model":
        held_out = load_file(run_dir / HELD_OUT)
        metrics["num_held_out_clips"] = len(held_out.pop("rows"))
        for name, (totals, counts) in held_out.items():
            if counts.any():
                metrics[name] = (totals.sum() / counts.sum()).item()
                replicates[name] = ratio_pseudo_values(totals, counts).numpy()
                metrics["intervals"][name] = interval(metrics[name], replicates[name])
    metrics["coverage"] = len(rows) / scoring["num_clips"]
    metrics["stored"] = vars(store.coverage(scoring["split"]))
    metrics["out_of_domain"] = score_set.kind == "embedded" and config["data"]["corpus"] is None
    metrics["scoring_hash"], metrics["protocol_hash"] = scoring_hash(protocol), protocol_hash
    times = {"sample_seconds": sampled - began, "score_seconds": scored - sampled}
    write_json(folder / "score.json", {**times, **provenance()})
    write_replicates(folder / REPLICATES, replicates)
    write_json(folder / "metrics.json", metrics)


def _generated(
    run_dir: Path, folder: Path, store: Store, rows: list[int], protocol: Protocol, progress: ProgressFile
) -> Path:
    """Folder of the clips to score; missing ones are made, a batch at a time."""
    generation = protocol["generation"]
    if generation["source"] == "ground_truth":
        return store.audio_path(rows[0]).parent
    wav = folder / "wav"
    wav.mkdir(parents=True, exist_ok=True)
    # Always the same batches, whatever was there already: a batch's size moves the last bits of its clips.
    size = generation["batch_size"]
    batches = [rows[first : first + size] for first in range(0, len(rows), size)]
    missing = [batch for batch in batches if not all((wav / store.audio_path(row).name).is_file() for row in batch)]
    if missing:
        decode = _decoder(run_dir, store, protocol, progress)
        for batch in missing:
            for row, waveform in zip(batch, decode(batch), strict=True):
                write_audio(wav / store.audio_path(row).name, waveform, store.layout.sample_rate)
    return wav


def _decoder(run_dir: Path, store: Store, protocol: Protocol, progress: ProgressFile) -> Decode:
    """What turns rows of the store into waveforms: the trained model, or the tokenizer alone."""
    tokenizer = build_tokenizer(store.front_end()["tokenizer"])
    if protocol["generation"]["source"] == "reconstruction":
        return lambda rows: tokenizer.decode(torch.stack([store.tokens(row) for row in rows]))
    system = load_system(run_dir / "checkpoints" / "final.ckpt")
    system.decoding = type(system.decoding).from_dict(protocol["generation"]["decoding"])
    system.to("cuda" if torch.cuda.is_available() else "cpu")
    return lambda rows: tokenizer.decode(_tokens(system, store, rows, protocol, progress).cpu())


def _tokens(
    system: AudioSystem, store: Store, rows: Sequence[int], protocol: Protocol, progress: ProgressFile
) -> Tensor:
    dataset = ClipDataset(store, protocol["scoring"]["split"])
    places = {row: place for place, row in enumerate(dataset.rows)}
    batch = system.transfer_batch_to_device(collate([dataset[places[row]] for row in rows]), system.device, 0)
    seeds = [derive_seed(protocol["generation"]["seed"], "clip", row) for row in rows]
    return system.generate(batch.text, seeds, lambda drawn, total: progress.write("sampling", drawn, total))

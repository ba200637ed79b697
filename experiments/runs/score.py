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
from experiments.config.options import JudgeOptions
from experiments.runs.data import latent_data, prepare_data, score_set_of
from experiments.runs.record import HELD_OUT, final_checkpoint, provenance
from experiments.scoring.folders import Evaluation, evaluate_folders
from experiments.scoring.health import check_health
from experiments.scoring.intervals import REPLICATES, interval, write_replicates
from experiments.scoring.metrics import HELD_OUT as HELD_OUT_JUDGE
from experiments.scoring.pairs import FilePairs
from experiments.scoring.protocol import Protocol, scoring_hash
from mntp.audio.files import write_audio
from mntp.inference.checkpoint import load_system
from mntp.io.json_lines import write_json
from mntp.metrics.jackknife import ratio_pseudo_values
from mntp.metrics.score_sets import ScoreSet
from mntp.seeding import derive_seed
from mntp.systems import AudioSystem
from mntp.tokenizers import build_tokenizer

Decode = Callable[[Sequence[int]], Tensor]  # rows of the store -> waveforms [B, samples]


def score(
    folder: Path, config: dict[str, Any], protocol: Protocol, options: JudgeOptions, progress: ProgressFile
) -> None:
    """Write the clips that are missing, score them all, and write `metrics.json`, whose presence means done.

    Args:
        folder: the scoring's folder, `RUN_DIR/evals/PROTOCOL_HASH`.
        config: the run's resolved config.
        protocol: how the run is scored.
        options: where judges and public checkpoints lie.
        progress: told how far the sampling is.

    Raises:
        ValueError: the data or the judge is not the one that the protocol names.
    """
    if (folder / "metrics.json").is_file():
        return
    began = time.monotonic()
    sampled, evaluation = began, Evaluation({"intervals": {}}, {})
    if protocol["scoring"]["kind"] == HELD_OUT_JUDGE:
        _check(folder, protocol, "store", prepare_data(config))
    else:
        store = latent_data(config).store
        score_set = score_set_of(config, protocol["scoring"]["kind"], options)
        _check(folder, protocol, "store", store.fingerprint)
        _check(folder, protocol, "judge", score_set.fingerprint())
        began = time.monotonic()
        rows = store.split(protocol["scoring"]["split"])[: protocol["scoring"]["num_clips"]]
        generated = _generated(folder, store, rows, protocol, progress)
        sampled = time.monotonic()
        progress.write("scoring", 0, 1)
        evaluation = _evaluate(
            store, rows, generated, score_set, options.judges / "features", _generation(folder, protocol)
        )
        evaluation.metrics["coverage"] = len(rows) / protocol["scoring"]["num_clips"]
        evaluation.metrics["stored"] = vars(store.coverage(protocol["scoring"]["split"]))
        evaluation.metrics["out_of_domain"] = score_set.kind == "embedded" and config["data"]["corpus"] is None
    if protocol["generation"]["source"] == "model":
        _add_held_out(evaluation, folder.parents[1] / HELD_OUT)
    planned = {"plan_scoring_hash": scoring_hash(protocol)}
    times = {"sample_seconds": sampled - began, "score_seconds": time.monotonic() - sampled}
    write_json(folder / "score.json", {**times, **provenance()})
    write_replicates(folder / REPLICATES, evaluation.replicates)
    write_json(folder / "metrics.json", {**evaluation.metrics, **planned})


def _check(folder: Path, protocol: Protocol, name: str, found: str) -> None:
    """Refuse to score with data or a judge that the plan didn't see."""
    if (expected := protocol["scoring"][name]) != found:
        raise ValueError(f"{folder.parents[1]}: the protocol asks for {name} {expected}, found {found}: plan again")


def _evaluate(
    store: Store, rows: list[int], generated: Path, score_set: ScoreSet, cache: Path, generation: dict[str, Any]
) -> Evaluation:
    """Score generated clips against the store's own, with its captions, and look for faults in them."""
    clips = sorted((store.clips[row].id, store.clips[row].caption, store.audio_path(row)) for row in rows)
    pairs = FilePairs({name: path for name, _, path in clips}, {name: generated / path.name for name, _, path in clips})
    evaluation = evaluate_folders(pairs, {name: text for name, text, _ in clips}, score_set, cache, generation)
    evaluation.metrics["health"] = check_health(pairs).as_json()
    return evaluation


def _generation(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """How the generated files were made, and by which run."""
    return {**protocol["generation"], "run": folder.parents[1].name}


def _add_held_out(evaluation: Evaluation, path: Path) -> None:
    """Add the means over all terms of all held-out clips, with their intervals over clips."""
    held_out = load_file(path)
    evaluation.metrics["num_held_out_clips"] = len(held_out.pop("rows"))
    for name, (totals, counts) in held_out.items():
        if counts.any():
            value, replicates = (totals.sum() / counts.sum()).item(), ratio_pseudo_values(totals, counts).numpy()
            evaluation.metrics[name], evaluation.replicates[name] = value, replicates
            if ends := interval(value, replicates):
                evaluation.metrics["intervals"][name] = ends


def _generated(folder: Path, store: Store, rows: list[int], protocol: Protocol, progress: ProgressFile) -> Path:
    """The folder of the clips to score; missing ones are made, a batch at a time."""
    generation = protocol["generation"]
    if generation["source"] == "ground_truth":
        return store.audio_path(rows[0]).parent
    wav = folder / "wav"
    wav.mkdir(parents=True, exist_ok=True)
    # Always the same batches, whatever is there already: the size of a batch changes the last bits of its clips.
    size = generation["batch_size"]
    batches = [rows[first : first + size] for first in range(0, len(rows), size)]
    missing = [batch for batch in batches if not all((wav / store.audio_path(row).name).is_file() for row in batch)]
    if missing:
        decode = _decoder(final_checkpoint(folder.parents[1]), store, protocol, progress)
        for batch in missing:
            for row, waveform in zip(batch, decode(batch), strict=True):
                write_audio(wav / store.audio_path(row).name, waveform, store.layout.sample_rate)
    return wav


def _decoder(checkpoint: Path, store: Store, protocol: Protocol, progress: ProgressFile) -> Decode:
    """A function from rows of the store to waveforms: by the trained model, or by the tokenizer alone."""
    tokenizer = build_tokenizer(store.preprocessing()["tokenizer"])
    if protocol["generation"]["source"] == "reconstruction":
        return lambda rows: tokenizer.decode(torch.stack([store.tokens(row) for row in rows]))
    system = load_system(checkpoint)
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

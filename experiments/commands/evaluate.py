"""Scores of a folder of generated audio against a folder of references: `mntp evaluate`."""

from pathlib import Path
from typing import Any

from rich.console import Console

from data_modules.captions.by_file import captions_by_name
from data_modules.store.store import is_store
from experiments.commands.selftest import run_selftest
from experiments.runs.record import provenance
from experiments.runs.run_or_store import judged_corpus, store_captions
from experiments.scoring.embedding_cache import BATCH_SIZE
from experiments.scoring.folders import evaluate_folders
from experiments.scoring.health import check_health
from experiments.scoring.intervals import replicates_path, write_replicates
from experiments.scoring.metrics import JudgeKind
from experiments.scoring.pairs import audio_files, captions_by_clip, pair_files
from experiments.scoring.protocol import GENERATION
from experiments.scoring.score_sets import load_score_set
from mntp.io.json_lines import read_json, write_json
from mntp.metrics.score_sets import ScoreSet


def evaluate(
    reference: Path | None = None,
    generated: Path | None = None,
    captions: Path | None = None,
    out: Path = Path("metrics.json"),
    judge: JudgeKind = "embedded",
    weights: Path = Path("weights"),
    judges: Path = Path("data/judges"),
    caption_seed: int = 0,
    batch_size: int = BATCH_SIZE,
    judge_of: Path | None = None,
    in_domain: bool = False,
    allow_partial: bool = False,
    allow_faults: bool = False,
    any_weights: bool = False,
    selftest: bool = False,
) -> int:
    """Score generated audio against references of the same names, with intervals and the protocol.

    Args:
        reference: folder of reference WAV or FLAC files.
        generated: folder of generated files of the same names, but for the suffix; its generation.json, if any, says
            how they were made.
        captions: CSV table with the columns file, caption, JSON {file: caption} or {file: [captions]}, or a store;
            without it scores on captions are left out.
        out: JSON file to write; the clips' pseudo-values go into <out without .json>.pseudo_values.safetensors.
        judge: `embedded` (part of the suite; its scores have names of their own), or `audioldm`: FD, FAD, KL, IS, CLAP
            and KID as the AudioLDM toolkit defines them.
        weights: folder of the public checkpoints (`mntp weights list`).
        judges: folder of judges of other corpora, and of cached embeddings.
        caption_seed: chooses one of several captions of a file.
        batch_size: files of equal length embedded at once.
        judge_of: a run or a store whose corpus' embedded judge to use, instead of the default corpus'.
        in_domain: say that the audio is of the embedded corpus; otherwise the embedded judge's scores are marked.
        allow_partial: score the files that both folders hold, and record what was left out.
        allow_faults: score faulty audio (silence, copies, other lengths or sample rates), and record the faults.
        any_weights: take the files in `weights` as they are; the scores then have names of their own (`fd_any`).
        selftest: instead, try the judge on `reference` (or on its own corpus): identical sets, noise, low-pass,
            shuffled time, order of files, batch size.

    Raises:
        ValueError: the folders don't hold the same files, or a number, file, caption or checkpoint can't be used.
    """
    if batch_size < 1:
        raise ValueError(f"--batch_size: got {batch_size}, expected at least 1")
    if any_weights and judge != "audioldm":
        raise ValueError("--any_weights: the embedded judge is part of the suite; expected --judge audioldm with it")
    corpus = None if judge_of is None else judged_corpus(judge_of)
    if selftest:
        with_text = reference is None or captions is not None
        score_set = load_score_set(judge, weights, judges, text=with_text, corpus=corpus, any_weights=any_weights)
        return run_selftest(score_set, reference, captions, caption_seed, batch_size, corpus)
    if reference is None or generated is None:
        raise ValueError("evaluate: expected --reference DIR and --generated DIR (or --selftest)")
    audio_files(reference)  # first, because the table's names are looked up in this folder
    texts = None if captions is None else _captions(captions, reference, caption_seed)
    pairs = pair_files(reference, generated, texts, allow_partial)
    generation = read_json(generated / GENERATION) or None
    health = check_health(pairs)
    if not allow_faults:
        health.require()  # before anything that takes a minute
    score_set = load_score_set(
        judge, weights, judges, text=captions is not None, corpus=corpus, any_weights=any_weights
    )
    evaluation = evaluate_folders(pairs, texts, score_set, judges / "features", generation, batch_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_replicates(replicates_path(out), evaluation.replicates)
    metrics = {
        **evaluation.metrics,
        "health": health.as_json(),
        "out_of_domain": score_set.kind == "embedded" and not in_domain,
        "provenance": provenance(),
    }
    write_json(out, metrics)
    _show(metrics, score_set, out)
    return 0


def _captions(table: Path, reference: Path, seed: int) -> dict[str, str]:
    """Captions by the names that files are paired by."""
    if is_store(table):
        return store_captions(table, audio_files(reference))
    return captions_by_clip(captions_by_name(table, reference, seed))


def _show(metrics: dict[str, Any], score_set: ScoreSet, out: Path) -> None:
    domain = "out of domain: it was trained on the embedded corpus" if metrics["out_of_domain"] else "in domain"
    about = f" ({domain})" if score_set.kind == "embedded" else ""
    lines = [f"judge {metrics['judge_kind']} {metrics['judge']}{about}, N = {metrics['num_clips']} clips"]
    for name in score_set.scores:
        if name in metrics:
            ends = metrics["intervals"].get(name)
            shown = "" if ends is None else f"   95 % over clips [{ends[0]:.4f}, {ends[1]:.4f}]"
            lines.append(f"  {name:<15} {metrics[name]:>9.4f}{shown}")
    if metrics["missing"]:
        lines.append(f"  coverage {metrics['coverage']:.1%}: {len(metrics['missing'])} references have no partner")
    if metrics["extra"]:
        lines.append(f"  {len(metrics['extra'])} generated files have no reference and were left out")
    lines += [f"  fault: {fault['line']}" for fault in metrics["health"]["faults"]]
    lines += [f"  {warning}" for warning in metrics["warnings"]]
    lines += [f"scoring {metrics['scoring_hash']}, protocol {metrics['protocol_hash']}", f"written to {out}"]
    console = Console()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

"""Scores of a folder of generated audio against a folder of references: `mntp evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile
from rich.console import Console

from data_modules.captions.by_file import captions_by_name
from experiments.commands.selftest import run_selftest
from experiments.runs.record import provenance
from experiments.scoring.embedding_cache import BATCH_SIZE
from experiments.scoring.folders import audio_names, evaluate_folders, pair_names
from experiments.scoring.intervals import replicates_path, write_replicates
from experiments.scoring.metrics import JudgeKind
from experiments.scoring.protocol import GENERATION, folder_protocol, protocol_hash, scoring_hash
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
    in_domain: bool = False,
    allow_partial: bool = False,
    selftest: bool = False,
) -> int:
    """Score generated audio against references of the same names, with intervals and the protocol.

    Args:
        reference: folder of reference WAV or FLAC files.
        generated: folder of generated files with the same names; its generation.json, if any, tells how they were made.
        captions: CSV table with the columns file, caption, or JSON {file: caption} or {file: [captions]}; without it
            no score on captions is taken.
        out: JSON file to write; the clips' pseudo-values go into <out without .json>.pseudo_values.safetensors.
        judge: `embedded` (trained here if it isn't there yet; names of its own), or `audioldm`: FD, FAD, KL, IS, CLAP
            and KID as the AudioLDM toolkit defines them.
        weights: folder of the public checkpoints (`mntp weights list`).
        judges: folder of cached judges, and of what they and the other networks heard.
        caption_seed: chooses one of several captions of a file.
        batch_size: files of equal length heard at once.
        in_domain: say that the audio is of the embedded corpus; otherwise the embedded judge's scores are marked.
        allow_partial: score the files that both folders hold, and record the coverage.
        selftest: instead, try the judge on `reference` (or on its own corpus): identical sets, noise, low-pass,
            shuffled time, order of files, batch size.

    Raises:
        ValueError: the folders don't hold the same files, or a number, file, caption or checkpoint can't be used.
    """
    if batch_size < 1:
        raise ValueError(f"--batch_size: got {batch_size}, expected at least 1")
    if selftest:
        score_set = load_score_set(judge, weights, judges, text=reference is None or captions is not None)
        return run_selftest(score_set, reference, captions, caption_seed, batch_size)
    if reference is None or generated is None:
        raise ValueError("evaluate: expected --reference DIR and --generated DIR (or --selftest)")
    audio_names(reference)  # first, because the table's names are looked up in this folder
    caption_by_name = None if captions is None else captions_by_name(captions, reference, caption_seed)
    pairs = pair_names(reference, generated, caption_by_name, allow_partial)  # before anything that takes a minute
    generation = read_json(generated / GENERATION) or None
    score_set = load_score_set(judge, weights, judges, text=captions is not None)
    evaluation = evaluate_folders(
        pairs, reference, generated, caption_by_name, score_set, judges / "features", batch_size
    )
    protocol = folder_protocol(
        score_set.kind,
        score_set.describe(),
        pairs.names,
        evaluation.reference_digests,
        _range_of_seconds([reference / name for name in pairs.names]),
        caption_by_name,
        f"seed {caption_seed}",
        len(pairs.missing),
        generation,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_replicates(replicates_path(out), evaluation.replicates)
    metrics = {
        **evaluation.metrics,
        "coverage": pairs.coverage,
        "missing": pairs.missing,
        "out_of_domain": score_set.kind == "embedded" and not in_domain,
        "scoring_hash": scoring_hash(protocol),
        "protocol_hash": protocol_hash(protocol),
        "protocol": protocol,
        "provenance": provenance(),
    }
    write_json(out, metrics)
    _show(metrics, score_set, out)
    return 0


def _range_of_seconds(paths: Sequence[Path]) -> tuple[float, float]:
    seconds = [round(soundfile.info(path).duration, 4) for path in paths]
    return min(seconds), max(seconds)


def _show(metrics: dict[str, Any], score_set: ScoreSet, out: Path) -> None:
    domain = "out of domain: it knows the embedded corpus only" if metrics["out_of_domain"] else "in domain"
    about = f" ({domain})" if score_set.kind == "embedded" else ""
    lines = [f"judge {metrics['judge_kind']} {metrics['judge']}{about}, N = {metrics['num_clips']} clips"]
    for name in score_set.scores:
        if name in metrics:
            ends = metrics["intervals"].get(name)
            shown = "" if ends is None else f"   95 % over clips [{ends[0]:.4f}, {ends[1]:.4f}]"
            lines.append(f"  {name:<15} {metrics[name]:>9.4f}{shown}")
    if metrics["missing"]:
        lines.append(f"  coverage {metrics['coverage']:.1%}: {len(metrics['missing'])} references have no partner")
    lines += [f"  {warning}" for warning in metrics["warnings"]]
    lines += [f"scoring {metrics['scoring_hash']}, protocol {metrics['protocol_hash']}", f"written to {out}"]
    console = Console()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

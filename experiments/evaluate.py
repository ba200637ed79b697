"""Scores of a folder of generated audio against a folder of references: `mntp evaluate`."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from data_modules.captions import read_captions
from data_modules.scenes import EmbeddedCorpus
from experiments.judge import load_or_train_judge
from mntp.audio import read_audio
from mntp.files import atomic_write
from mntp.metrics import frechet_distance, inception_score, kl_divergence
from mntp.metrics.judge import Judge, JudgeOutput

SCORES = ("fd_judge", "kl_judge", "is_judge", "text_judge")
AUDIO_SUFFIXES = (".flac", ".wav")
_NUM_NAMES_SHOWN = 5


def evaluate(
    reference: Path,
    generated: Path,
    captions: Path,
    out: Path = Path("metrics.json"),
    judges: Path = Path("data/judges"),
    in_domain: bool = False,
) -> None:
    """Score generated audio against references with the embedded judge, which is trained if it isn't there yet.

    Args:
        reference: folder of reference WAV or FLAC files.
        generated: folder of generated files with the same names.
        captions: CSV table with the columns file, caption; of a path, the file name alone counts.
        out: JSON file to write.
        judges: folder of cached judges.
        in_domain: say that the audio is of the embedded corpus; otherwise scores are marked out of domain.

    Raises:
        ValueError: the folders don't hold the same files, or a file or caption can't be used.
    """
    _audio_names(reference)  # first, because the table's names are looked up in this folder
    caption_by_name = _captions_by_name(captions, reference)
    paired_names(reference, generated, caption_by_name)  # before the minute that training a judge may take
    judge = load_or_train_judge(judges, EmbeddedCorpus())
    metrics = evaluate_folders(reference, generated, caption_by_name, judge, in_domain=in_domain)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        json.dump(metrics, file, indent=2)
    _show(metrics, out)


def evaluate_folders(
    reference: Path,
    generated: Path,
    captions: dict[str, str],
    judge: Judge,
    *,
    in_domain: bool = False,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Score generated files against the reference files of the same names.

    The files are read as any listener would (16-bit WAV, resampled to 16 kHz, channel 0). The order of files and
    the batch size don't change the scores beyond float32 rounding.

    Args:
        reference: folder of WAV or FLAC files.
        generated: folder with files of exactly the same names.
        captions: caption by file name; may hold more files than the folders.
        judge: on any device, in `eval` mode.
        in_domain: the audio is (meant to be) of the corpus that the judge was trained on.
        batch_size: files of equal length heard at once.

    Returns:
        `fd_judge` (squared feature units), `kl_judge` (nats, reference || generated), `is_judge` (1 to the number of
        classes, of the generated files), `text_judge` (mean cosine similarity of the generated files and their
        captions), `num_clips`, `judge` (its fingerprint), `judge_kind`, `out_of_domain`.

    Raises:
        ValueError: a folder holds fewer than two audio files, the folders differ, a caption is missing or empty, or a
            file is unreadable, empty or not finite (AudioError); the message names the first of them.
    """
    names = paired_names(reference, generated, captions)
    return evaluate_names(names, reference, generated, captions, judge, in_domain=in_domain, batch_size=batch_size)


def evaluate_names(
    names: Sequence[str],
    reference: Path,
    generated: Path,
    captions: dict[str, str],
    judge: Judge,
    *,
    in_domain: bool = False,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Score the files `names` of two folders, which both hold and may hold more; as `evaluate_folders` otherwise."""
    real = _hear(judge, [reference / name for name in names], batch_size)
    fake = _hear(judge, [generated / name for name in names], batch_size)
    text = judge.embed_text([captions[name] for name in names])
    return {
        "fd_judge": frechet_distance(real.features, fake.features),
        "kl_judge": kl_divergence(real.log_probs, fake.log_probs),
        "is_judge": inception_score(fake.log_probs),
        "text_judge": (fake.audio_embedding * text).sum(dim=1).double().mean().item(),
        "num_clips": len(names),
        "judge": judge.fingerprint(),
        "judge_kind": "embedded",
        "out_of_domain": not in_domain,
    }


def paired_names(reference: Path, generated: Path, captions: dict[str, str]) -> list[str]:
    """Sorted names of the audio files that both folders hold, each with a caption.

    Raises:
        ValueError: a folder is missing or holds fewer than two audio files, the folders differ, or a caption is
            missing.
    """
    in_reference, in_generated = _audio_names(reference), _audio_names(generated)
    _require(in_generated, in_reference, str(generated))
    _require(in_reference, in_generated, str(reference))
    _require(captions, in_reference, "the captions table")
    return sorted(in_reference)


def _captions_by_name(table: Path, reference: Path) -> dict[str, str]:
    captions: dict[str, str] = {}
    for row in read_captions(table, reference):
        name = PurePosixPath(row.file).name
        if name in captions:
            raise ValueError(f"{table}, line {row.line}: a second file named {name}; scores pair files by name alone")
        captions[name] = row.caption
    return captions


def _audio_names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected a folder of WAV or FLAC files")
    names = {path.name for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES}
    if len(names) < 2:
        raise ValueError(f"{folder}: holds {len(names)} WAV or FLAC files; a Frechet distance needs at least 2")
    return names


def _require(present: Iterable[str], wanted: Iterable[str], where: str) -> None:
    missing = sorted(set(wanted) - set(present))
    if missing:
        shown = ", ".join(missing[:_NUM_NAMES_SHOWN]) + (", ..." if len(missing) > _NUM_NAMES_SHOWN else "")
        raise ValueError(
            f"{where} lacks {len(missing)} files that the scores need ({shown}): both folders and the table must "
            "name the same files"
        )


@torch.no_grad()
def _hear(judge: Judge, paths: list[Path], batch_size: int) -> JudgeOutput:
    """Judge files; outputs on the CPU, in the order of `paths`."""
    device = next(judge.parameters()).device
    rows: list[int] = []
    heard: list[JudgeOutput] = []
    for batch_rows, waveform in _batches_of_equal_length(paths, batch_size):
        rows += batch_rows
        heard.append(judge(waveform.to(device)))
    order = torch.tensor(rows).argsort()
    return JudgeOutput(*(torch.cat(parts).cpu()[order] for parts in zip(*heard, strict=True)))


def _batches_of_equal_length(paths: list[Path], batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield rows of `paths` and their waveforms [B, samples]; padding to a common length would be heard."""
    waiting: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
    for row, path in enumerate(paths):
        waveform = read_audio(path)
        group = waiting[len(waveform)]
        group.append((row, waveform))
        if len(group) == batch_size:
            yield _stack(waiting.pop(len(waveform)))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, Tensor]]) -> tuple[list[int], Tensor]:
    rows, waveforms = zip(*group, strict=True)
    return list(rows), torch.stack(waveforms)


def _show(metrics: dict[str, Any], out: Path) -> None:
    domain = "out of domain: it knows the embedded corpus only" if metrics["out_of_domain"] else "in domain"
    console = Console()
    lines = [
        f"embedded judge {metrics['judge']} ({domain}), N = {metrics['num_clips']} clips",
        *(f"  {name:<10} {metrics[name]:>9.4f}" for name in SCORES),
        f"written to {out}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

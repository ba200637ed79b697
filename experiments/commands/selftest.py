"""Whether a judge can be believed: `mntp evaluate --selftest`.

Real sounds against themselves, made worse step by step, written in another order and heard in other batches.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchaudio.functional import lowpass_biquad

from data_modules.captions.by_file import captions_by_name
from data_modules.scenes import EmbeddedCorpus
from experiments.scoring.folders import Evaluation, FilePairs, audio_names, evaluate_folders
from experiments.scoring.metrics import JUDGED, METRICS
from mntp.audio.files import read_audio, write_audio
from mntp.audio.log_mel import SAMPLE_RATE, normalise
from mntp.metrics.score_sets import ScoreSet
from mntp.seeding import make_generator

NUM_CLIPS = 128
ZERO = {"fd": 1e-6, "fad": 1e-6, "fd_judge": 1e-6, "kl_judge": 1e-9, "kl": 2e-3}  # of identical sets, at most
SLACK = 0.05  # share of the whole change that one step may go back: a mild damage may be too mild to be heard
SAME = 1e-3  # relative difference that float32 may make


def add_noise(waveform: Tensor, decibels: float, name: str) -> Tensor:
    """White noise at a level below (or above) the clip's own power."""
    noise = torch.randn(len(waveform), generator=make_generator("self-test noise", name))
    return waveform + waveform.std() * 10 ** (-decibels / 20) * noise


def low_pass(waveform: Tensor, cutoff: float, name: str) -> Tensor:
    """Two second-order filters in a row, 24 dB an octave; cutoff in Hz."""
    return lowpass_biquad(lowpass_biquad(waveform, SAMPLE_RATE, cutoff), SAMPLE_RATE, cutoff)


def shuffle_time(waveform: Tensor, seconds: float, name: str) -> Tensor:
    """Pieces of equal length in random order."""
    pieces = waveform.split(max(1, round(seconds * SAMPLE_RATE)))
    order = torch.randperm(len(pieces), generator=make_generator("self-test order", name))
    return torch.cat([pieces[place] for place in order.tolist()])


DAMAGES: dict[str, tuple[Callable[[Tensor, float, str], Tensor], tuple[float, ...], str]] = {
    "noise": (add_noise, (20.0, 5.0, -10.0), "dB of signal over noise"),
    "low-pass": (low_pass, (2000.0, 700.0, 200.0), "Hz"),
    "shuffled time": (shuffle_time, (0.5, 0.1, 0.02), "s a piece"),
}


@dataclass(frozen=True)
class Check:
    """One thing that must hold, what was found, and whether it does."""

    name: str
    found: str
    holds: bool


def run_selftest(
    score_set: ScoreSet, reference: Path | None, captions: Path | None, caption_seed: int, batch_size: int
) -> int:
    """Run all checks and show them.

    Args:
        score_set: the judge to try.
        reference: folder of real sounds, of which the first 128 are taken; the embedded corpus' test split if None.
        captions: their captions, or None.
        caption_seed: chooses one of several captions.
        batch_size: the other one is 1.

    Returns:
        0 if everything holds, else 1.

    Raises:
        ValueError: the folder or a file can't be used.
    """
    with tempfile.TemporaryDirectory(prefix="mntp-selftest-") as folder:
        work = Path(folder)
        texts: dict[str, str] | None = None
        if reference is None:
            reference, texts = _synthesise(work / "corpus")
        elif captions is not None:
            texts = captions_by_name(captions, reference, caption_seed)
        names = sorted(audio_names(reference))[:NUM_CLIPS]
        if texts is not None and (lacking := sorted(set(names) - set(texts))):
            raise ValueError(f"{captions}: no caption for {len(lacking)} files, the first is {lacking[0]}")
        checks = list(_checks(score_set, reference, names, texts, batch_size, work))
    table = Table(title=f"self-test of {score_set.kind} {score_set.fingerprint()}, N = {len(names)} clips")
    for column in ("check", "found", ""):
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(check.name, check.found, "ok" if check.holds else "FAILED")
    Console().print(table)
    return 0 if all(check.holds for check in checks) else 1


def _checks(
    score_set: ScoreSet,
    reference: Path,
    names: list[str],
    captions: dict[str, str] | None,
    batch_size: int,
    work: Path,
) -> Iterator[Check]:
    def score(generated: Path, cache: str = "features", batch: int = batch_size) -> Evaluation:
        return evaluate_folders(
            FilePairs(names, []),
            reference,
            generated,
            captions,
            score_set,
            work / cache,
            batch_size=batch,
        )

    clean = score(reference).metrics
    for name, most in ZERO.items():
        if name in clean:
            yield Check(f"{name} of identical sets is 0", f"{clean[name]:.2g}", abs(clean[name]) <= most)
    for title, (damage, levels, unit) in DAMAGES.items():
        seen = [clean]
        for level in levels:
            seen.append(score(_damaged(reference, names, damage, level, work / f"{title} {level}")).metrics)
        for name in (name for name in JUDGED[score_set.kind] if name in clean):
            values = [metrics[name] for metrics in seen]
            steps = " -> ".join(f"{value:.3f}" for value in values)
            yield Check(
                f"{name} gets worse: {title}, {', '.join(f'{level:g}' for level in levels)} {unit}",
                steps,
                gets_worse(name, values),
            )
    spoilt = work / f"noise {DAMAGES['noise'][1][1]}"
    first = score(spoilt).metrics
    backwards = _damaged(reference, names[::-1], lambda waveform, *_: waveform, 0.0, work / "again", source=spoilt)
    for title, other in (
        ("written in another order", score(backwards, "order").metrics),
        ("heard one by one", score(spoilt, "single", 1).metrics),
    ):
        gap = max(abs(other[n] - first[n]) / max(abs(first[n]), 1e-6) for n in JUDGED[score_set.kind] if n in first)
        yield Check(f"the same scores {title}", f"relative difference {gap:.1e}", gap < SAME)


def gets_worse(name: str, values: Sequence[float]) -> bool:
    """Whether the last value is worse than the first, and no step goes back by more than `SLACK` of that change."""
    losses = [-METRICS[name].better * value for value in values]
    change = losses[-1] - losses[0]
    return change > 0 and all(after > before - SLACK * change for before, after in pairwise(losses))


def _damaged(
    reference: Path,
    names: list[str],
    damage: Callable[[Tensor, float, str], Tensor],
    level: float,
    folder: Path,
    source: Path | None = None,
) -> Path:
    folder.mkdir()
    for name in names:
        waveform = damage(read_audio((source or reference) / name), level, name)
        write_audio(folder / name, normalise(waveform))
    return folder


def _synthesise(folder: Path) -> tuple[Path, dict[str, str]]:
    """The front of the embedded corpus' test split, and its captions."""
    corpus, captions = EmbeddedCorpus(), {}
    folder.mkdir()
    for index in range(min(NUM_CLIPS, corpus.splits()["test"])):
        scene, name = corpus.scene("test", index), f"{index:04d}.wav"
        write_audio(folder / name, normalise(torch.from_numpy(scene.waveform)))
        captions[name] = scene.caption
    return folder, captions

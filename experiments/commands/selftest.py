"""Whether a judge's scores behave as they must: `mntp evaluate --selftest`.

Clips are scored against themselves, made worse step by step, written in another order and embedded in other batches.
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
from experiments.scoring.folders import Evaluation, evaluate_folders
from experiments.scoring.metrics import JUDGED, METRICS
from experiments.scoring.pairs import FilePairs, audio_files, captions_by_clip, clip_name
from mntp.audio.files import read_audio, write_audio
from mntp.audio.log_mel import SAMPLE_RATE, normalise
from mntp.metrics.other_weights import SUFFIX
from mntp.metrics.score_sets import ScoreSet
from mntp.seeding import make_generator

NUM_CLIPS = 128
ZERO = {"fd": 1e-6, "fad": 1e-6, "fd_judge": 1e-6, "kl_judge": 1e-9, "kl": 2e-3}  # of identical sets, at most
SLACK = 0.05  # share of the whole change that one step may go back: a mild damage may be too mild to tell
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
    score_set: ScoreSet,
    reference: Path | None,
    captions: Path | None,
    caption_seed: int,
    batch_size: int,
    corpus: EmbeddedCorpus | None = None,
) -> int:
    """Run all checks and show them.

    Args:
        score_set: the judge to try.
        reference: folder of real sounds, of which the first 128 are taken; the test split of `corpus` if None.
        captions: their captions, or None.
        caption_seed: chooses one of several captions.
        batch_size: the other one is 1.
        corpus: that the embedded judge is trained on; the default one if None.

    Returns:
        0 if everything holds, else 1.

    Raises:
        ValueError: the folder or a file can't be used.
    """
    with tempfile.TemporaryDirectory(prefix="mntp-selftest-") as folder:
        work = Path(folder)
        texts: dict[str, str] | None = None
        if reference is None:
            reference, texts = _synthesise(corpus or EmbeddedCorpus(), work / "corpus")
        elif captions is not None:
            texts = captions_by_clip(captions_by_name(captions, reference, caption_seed))
        clips = dict(list(audio_files(reference).items())[:NUM_CLIPS])
        if texts is not None and (lacking := sorted(set(clips) - set(texts))):
            raise ValueError(f"{captions}: no caption for {len(lacking)} clips, the first is {lacking[0]}")
        checks = list(_checks(score_set, clips, texts, batch_size, work))
    table = Table(title=f"self-test of {score_set.kind} {score_set.fingerprint()}, N = {len(clips)} clips")
    for column in ("check", "found", ""):
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(check.name, check.found, "ok" if check.holds else "FAILED")
    Console().print(table)
    return 0 if all(check.holds for check in checks) else 1


def _checks(
    score_set: ScoreSet,
    clips: dict[str, Path],
    captions: dict[str, str] | None,
    batch_size: int,
    work: Path,
) -> Iterator[Check]:
    def score(generated: dict[str, Path], cache: str = "features", batch: int = batch_size) -> Evaluation:
        return evaluate_folders(
            FilePairs(clips, generated),
            captions,
            score_set,
            work / cache,
            batch_size=batch,
        )

    compared = {*JUDGED["embedded"], *JUDGED["audioldm"]}
    shown = [name for name in score_set.scores if name.removesuffix(SUFFIX) in compared]
    clean = score(clips).metrics
    for name, most in ZERO.items():
        if name in clean:
            yield Check(f"{name} of identical sets is 0", f"{clean[name]:.2g}", abs(clean[name]) <= most)
    for title, (damage, levels, unit) in DAMAGES.items():
        seen = [clean]
        for level in levels:
            seen.append(score(_damaged(clips, damage, level, work / f"{title} {level}")).metrics)
        for name in (name for name in shown if name in clean):
            values = [metrics[name] for metrics in seen]
            steps = " -> ".join(f"{value:.3f}" for value in values)
            yield Check(
                f"{name} gets worse: {title}, {', '.join(f'{level:g}' for level in levels)} {unit}",
                steps,
                gets_worse(name, values),
            )
    noisy = {name: work / f"noise {DAMAGES['noise'][1][1]}" / f"{name}.wav" for name in clips}
    first = score(noisy).metrics
    backwards = _damaged(dict(reversed(noisy.items())), lambda waveform, *_: waveform, 0.0, work / "again")
    for title, other in (
        ("written in another order", score({name: backwards[name] for name in clips}, "order").metrics),
        ("embedded one by one", score(noisy, "single", 1).metrics),
    ):
        gap = max(abs(other[n] - first[n]) / max(abs(first[n]), 1e-6) for n in shown if n in first)
        yield Check(f"the same scores {title}", f"relative difference {gap:.1e}", gap < SAME)


def gets_worse(name: str, values: Sequence[float]) -> bool:
    """Whether the last value is worse than the first, and no step goes back by more than `SLACK` of that change."""
    losses = [-METRICS[name.removesuffix(SUFFIX)].better * value for value in values]
    change = losses[-1] - losses[0]
    return change > 0 and all(after > before - SLACK * change for before, after in pairwise(losses))


def _damaged(
    clips: dict[str, Path], damage: Callable[[Tensor, float, str], Tensor], level: float, folder: Path
) -> dict[str, Path]:
    """Damage clips and write them, in the order given."""
    folder.mkdir()
    written = {name: folder / f"{name}.wav" for name in clips}
    for name, path in clips.items():
        write_audio(written[name], normalise(damage(read_audio(path), level, name)))
    return written


def _synthesise(corpus: EmbeddedCorpus, folder: Path) -> tuple[Path, dict[str, str]]:
    """The front of an embedded corpus' test split, and its captions."""
    captions = {}
    folder.mkdir()
    for index in range(min(NUM_CLIPS, corpus.splits()["test"])):
        scene, name = corpus.scene("test", index), f"{index:04d}.wav"
        write_audio(folder / name, normalise(torch.from_numpy(scene.waveform)))
        captions[clip_name(name)] = scene.caption
    return folder, captions

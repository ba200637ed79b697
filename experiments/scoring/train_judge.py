"""The embedded judge's training, on the embedded corpus' training split, and its cache.

A judge is a function of the corpus, of `JudgeTraining` and of this code: its file is named by a hash of all three,
so that it is trained once (within a minute on 2 cores) and found again by every later run.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from data_modules.scenes import CLASSES, EmbeddedCorpus, Scene
from mntp.audio.log_mel import normalise
from mntp.io.files import atomic_write
from mntp.io.locks import locked
from mntp.io.progress import show_progress
from mntp.metrics.networks.judge import Judge, JudgeOutput
from mntp.seeding import derive_seed, make_generator

SOURCE_VERSION = 1
"""To be raised with every change of the judge's network or training: cached judges are trained anew."""


_CLIPS_AT_ONCE = 64


@dataclass(frozen=True)
class JudgeTraining:
    """How a judge is trained; the defaults take under a minute on 2 cores.

    Attributes:
        num_clips: clips taken from the front of the training split (all of it, if it holds fewer).
        num_epochs: passes over them.
        batch_size: clips a step; each caption is told apart from this many less one.
        lr: peak learning rate of AdamW, reached after a tenth of the steps and annealed to 0 by a cosine.
        temperature: of the contrastive loss: cosines are divided by it.
        hiss_levels: least and greatest log-mel level of the noise that a clip is heard through.
        seed: of the initial weights, of the order of clips and of the noise.
    """

    num_clips: int = 1800
    num_epochs: int = 10
    batch_size: int = 64
    lr: float = 3e-3
    temperature: float = 0.07
    hiss_levels: tuple[float, float] = (-9.0, -1.0)
    seed: int = 0


@dataclass(frozen=True)
class _Clips:
    """Clips as the judge is taught: log-mel [n, frames, 64], class probabilities [n, K], n captions."""

    log_mel: Tensor
    class_probs: Tensor
    captions: list[str]


def judge_hash(corpus: EmbeddedCorpus, training: JudgeTraining | None = None) -> str:
    """12 hex digits over everything that makes a judge: known before it is trained."""
    text = json.dumps(_recipe(corpus, training or JudgeTraining()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def judge_path(folder: Path, corpus: EmbeddedCorpus, training: JudgeTraining | None = None) -> Path:
    """Where `load_or_train_judge` keeps the judge of `corpus`."""
    return folder / f"judge-{judge_hash(corpus, training)}.safetensors"


def load_or_train_judge(folder: Path, corpus: EmbeddedCorpus, training: JudgeTraining | None = None) -> Judge:
    """Load the cached judge of `corpus`, or train it and keep it in `folder`.

    Beside the weights lies a JSON file for readers, with the recipe and how good the judge is on the validation
    split.

    Returns:
        The judge on the CPU, in `eval` mode, without gradients.

    Raises:
        ValueError: the cached file is damaged or was made by another recipe.
    """
    training = training or JudgeTraining()
    path = judge_path(folder, corpus, training)
    with locked(path):
        if not path.exists():
            judge, quality = train_judge(corpus, training)
            _save_judge(path, judge, _recipe(corpus, training), quality)
    return _load_judge(path, _recipe(corpus, training))


def train_judge(corpus: EmbeddedCorpus, training: JudgeTraining) -> tuple[Judge, dict[str, float]]:
    """Train a judge on the training split and measure it on the validation split.

    Deterministic given `training.seed`, on one machine and number of threads.

    Returns:
        The judge in `eval` mode, and its quality as `measure_judge` reports it, with the seconds it took.
    """
    start = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(training.seed, "judge weights"))
        judge = Judge(CLASSES)
    num_clips = min(training.num_clips, corpus.splits()["train"])
    clips = _hear(judge, corpus, "train", num_clips)
    synthesised = time.monotonic()
    _fit(judge, clips, training)
    trained = time.monotonic()
    quality = measure_judge(judge, corpus, "val")
    seconds = {"synthesis_seconds": synthesised - start, "fit_seconds": trained - synthesised}
    return judge, {**quality, **seconds}


@torch.no_grad()
def measure_judge(judge: Judge, corpus: EmbeddedCorpus, split: str) -> dict[str, float]:
    """Measure how well a judge hears a split that it wasn't trained on.

    Returns:
        `<split>_clips`: their number n.
        `<split>_class_accuracy`: how often the likeliest class sounds in the clip.
        `<split>_class_set_accuracy`: how often the k likeliest classes are exactly the k that sound.
        `<split>_retrieval_accuracy`: how often a clip's caption is the nearest among those of all n clips.
        `<split>_text_judge`: mean cosine similarity of clips and their captions.
        `<split>_text_judge_shuffled`: the same with each clip's caption taken from its neighbour.
    """
    clips = _hear(judge, corpus, split, corpus.splits()[split])
    heard, text = judge.listen(clips.log_mel), judge.embed_text(clips.captions)
    present = clips.class_probs > 0
    ranks = heard.log_probs.argsort(dim=1, descending=True).argsort(dim=1)
    chosen = ranks < present.sum(dim=1, keepdim=True)
    similarity = heard.audio_embedding @ text.T
    ids = _caption_ids(clips.captions)
    n = len(clips.captions)
    return {
        f"{split}_clips": n,
        f"{split}_class_accuracy": present.gather(1, heard.log_probs.argmax(1)[:, None]).float().mean().item(),
        f"{split}_class_set_accuracy": (chosen == present).all(dim=1).float().mean().item(),
        f"{split}_retrieval_accuracy": (ids[similarity.argmax(1)] == ids).float().mean().item(),
        f"{split}_text_judge": similarity.diagonal().mean().item(),
        f"{split}_text_judge_shuffled": similarity.roll(1, dims=1).diagonal().mean().item(),
    }


def _fit(judge: Judge, clips: _Clips, training: JudgeTraining) -> None:
    batches = [
        batch for epoch in range(training.num_epochs) for batch in _batches(len(clips.captions), training, epoch)
    ]
    optimizer = torch.optim.AdamW(judge.parameters(), lr=training.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.lr, total_steps=len(batches), pct_start=0.1
    )
    generator = make_generator(training.seed, "judge hiss")
    judge.train()
    for rows in show_progress(batches, "Training the judge (steps)", len(batches)):
        captions = [clips.captions[row] for row in rows.tolist()]
        heard = judge.listen(add_hiss(clips.log_mel[rows], training.hiss_levels, generator))
        loss = -(clips.class_probs[rows] * heard.log_probs).sum(1).mean()
        loss = loss + contrastive_loss(heard, judge.embed_text(captions), captions, training.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    judge.eval().requires_grad_(False)


def add_hiss(log_mel: Tensor, levels: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Put each clip of log_mel [B, frames, 64] into noise of its own level and tilt, from inaudible to plain.

    Without it a trace of noise in the pauses, where the corpus is perfectly silent, would take a clip as far from
    home as pure noise does: everything generated would score alike.
    """
    shape = (len(log_mel), 1, 1)
    level = torch.empty(shape).uniform_(*levels, generator=generator)
    tilt = torch.empty(shape).uniform_(-1, 1, generator=generator)
    gain = (level + tilt * torch.linspace(-1, 1, log_mel.shape[-1])).exp()
    return (log_mel.exp() + gain * torch.rand(log_mel.shape, generator=generator)).log()


def contrastive_loss(heard: JudgeOutput, text: Tensor, captions: list[str], temperature: float) -> Tensor:
    """InfoNCE in both directions, in nats; clips with the same caption share the target evenly.

    Args:
        heard: B clips.
        text: [B, E] embeddings of their captions.
        captions: the captions themselves, which tell what is the same.
        temperature: divides the cosine similarities.
    """
    logits = heard.audio_embedding @ text.T / temperature
    ids = _caption_ids(captions)
    same = (ids[:, None] == ids).to(logits)
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _caption_ids(captions: list[str]) -> Tensor:
    """[n] int64, equal where captions are equal."""
    first = {caption: row for row, caption in reversed(list(enumerate(captions)))}
    return torch.tensor([first[caption] for caption in captions])


def _batches(num_clips: int, training: JudgeTraining, epoch: int) -> Iterable[Tensor]:
    order = torch.randperm(num_clips, generator=make_generator(training.seed, "judge order", epoch))
    return order.split(training.batch_size)


@torch.no_grad()
def _hear(judge: Judge, corpus: EmbeddedCorpus, split: str, num_clips: int) -> _Clips:
    """Synthesise the first clips of a split and analyse them, as 16-bit files at the front end's level would be."""
    scenes: list[Scene] = []
    log_mel: list[Tensor] = []
    batches = torch.arange(num_clips).split(_CLIPS_AT_ONCE)
    for batch in show_progress(batches, f"Synthesising {num_clips} {split} clips for the judge", len(batches)):
        scenes += [corpus.scene(split, index) for index in batch.tolist()]
        waveform = normalise(torch.stack([torch.from_numpy(scene.waveform) for scene in scenes[-len(batch) :]]))
        log_mel.append(judge.spectrogram((waveform * 2**15).round() / 2**15))
    class_probs = torch.stack([_class_probs(scene.classes, judge.classes) for scene in scenes])
    return _Clips(torch.cat(log_mel), class_probs, [scene.caption for scene in scenes])


def _class_probs(present: tuple[str, ...], classes: tuple[str, ...]) -> Tensor:
    """[K], uniform over the classes that are present."""
    return torch.tensor([name in present for name in classes]) / len(present)


def _recipe(corpus: EmbeddedCorpus, training: JudgeTraining) -> dict[str, Any]:
    return {
        "source_version": SOURCE_VERSION,
        "classes": list(CLASSES),
        "corpus": corpus.settings(),
        "training": asdict(training),
    }


def _save_judge(path: Path, judge: Judge, recipe: dict[str, Any], quality: dict[str, float]) -> None:
    """Write the readers' JSON, then the weights: whoever finds the weights finds both."""
    report = {"fingerprint": judge.fingerprint(), "recipe": recipe, "quality": quality}
    with atomic_write(path.with_suffix(".json")) as file:
        json.dump(report, file, indent=2)
    metadata = {"fingerprint": judge.fingerprint(), "recipe": json.dumps(recipe, sort_keys=True)}
    with atomic_write(path, "wb") as file:
        file.write(save(judge.state_dict(), metadata))


def _load_judge(path: Path, recipe: dict[str, Any]) -> Judge:
    judge = Judge(recipe["classes"])
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        judge.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a readable judge ({reason}); delete it, and it is trained again") from error
    if metadata.get("recipe") != json.dumps(recipe, sort_keys=True):
        raise ValueError(f"{path}: made by another recipe than its name says; delete it, and it is trained again")
    if metadata.get("fingerprint") != judge.fingerprint():
        raise ValueError(f"{path}: its weights were altered; delete it, and it is trained again")
    return judge.eval().requires_grad_(False)

"""The embedded judge: the shipped one, and the training of others.

The judge of the default corpus is part of this package (`experiments/scoring/judge`), so that everybody scores with the
same weights: training depends on the processor in its last bits, which the training then amplifies. The judge of
another corpus is trained where it is first needed, on one thread, and kept in a folder of judges.

A judge is named by its recipe: what it is trained on, and how. Scene i of a split is the same in a corpus of any size,
so the shipped judge is that of every corpus that differs from the default one in size alone.
"""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from data_modules.scenes import CLASSES, EmbeddedCorpus, Scene
from mntp.audio.log_mel import normalise
from mntp.io.files import atomic_write, file_sha256
from mntp.io.fingerprint import hash_json
from mntp.io.locks import locked
from mntp.io.progress import show_progress
from mntp.metrics.networks.judge import Judge, JudgeOutput
from mntp.seeding import derive_seed, make_generator

SOURCE_VERSION = 1
"""To be raised with every change of the judge's network or training; then train the shipped judge again, too."""
SHIPPED = Path(__file__).with_name("judge")
"""Folder of the default corpus' judge, made by `mntp judge`."""
SHIPPED_SHA256 = "5cbdbbb90aa56fce3501cc8a3160baa058475d8b6c85d47f60df1a5cea6a4470"
"""Of the shipped judge's file."""

_CLIPS_AT_ONCE = 64


@dataclass(frozen=True)
class JudgeTraining:
    """How a judge is trained; the defaults take two to three minutes on one core.

    Attributes:
        num_clips: number of training scenes, the first ones of the corpus' training split, or all of a smaller one.
        num_epochs: passes over them.
        batch_size: clips per step; each clip's caption is contrasted with those of the others.
        lr: peak learning rate of AdamW, reached after a tenth of the steps and annealed to 0 by a cosine.
        temperature: of the contrastive loss, which divides the cosines by it.
        hiss_levels: lowest and highest log-mel level of the noise that is added to a clip.
        seed: of the initial weights, the order of clips and the noise.
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
    """Training clips: log-mel [n, frames, 64], class probabilities [n, K], n captions."""

    log_mel: Tensor
    class_probs: Tensor
    captions: list[str]


def judge_hash(corpus: EmbeddedCorpus, training: JudgeTraining | None = None) -> str:
    """Return 12 hex digits over a judge's recipe, known before it is trained."""
    return hash_json(judge_recipe(corpus, training or JudgeTraining()))


def judge_recipe(corpus: EmbeddedCorpus, training: JudgeTraining) -> dict[str, Any]:
    """Everything that makes a judge, and nothing else, as plain JSON values."""
    sizes = {f"num_{split}" for split in corpus.splits()}
    training = replace(training, num_clips=min(training.num_clips, corpus.num_train))
    recipe = {
        "source_version": SOURCE_VERSION,
        "classes": list(CLASSES),
        "corpus": {key: value for key, value in corpus.settings().items() if key not in sizes},
        "training": asdict(training),
    }
    return dict(json.loads(json.dumps(recipe)))  # lists for tuples, as in a file


def judge_path(folder: Path, corpus: EmbeddedCorpus, training: JudgeTraining | None = None) -> Path:
    """Where a folder of judges keeps the judge of `corpus`."""
    return folder / f"judge-{judge_hash(corpus, training)}.safetensors"


def load_or_train_judge(folder: Path, corpus: EmbeddedCorpus, training: JudgeTraining | None = None) -> Judge:
    """Load the judge of `corpus`: the shipped one or one in `folder`, which is trained if it is missing.

    Returns:
        The judge on the CPU, in `eval` mode, without gradients.

    Raises:
        ValueError: the file is damaged, or was made by another recipe.
    """
    training = training or JudgeTraining()
    recipe = judge_recipe(corpus, training)
    enough = replace(corpus, num_train=max(corpus.num_train, training.num_clips))
    shipped = judge_path(SHIPPED, enough, training)
    if shipped.exists():
        if file_sha256(shipped) != SHIPPED_SHA256:
            raise ValueError(f"{shipped}: not the judge that the suite ships; install the suite again")
        return _load_judge(shipped, judge_recipe(enough, training))
    path = judge_path(folder, corpus, training)
    with locked(path):
        if not path.exists():
            save_judge(folder, corpus, training)
    return _load_judge(path, recipe)


def save_judge(folder: Path, corpus: EmbeddedCorpus, training: JudgeTraining | None = None) -> Path:
    """Train a judge and write it into a folder of judges.

    A JSON file beside the weights holds the recipe and the judge's quality on the validation split.

    Returns:
        The file of the weights.
    """
    training = training or JudgeTraining()
    judge, quality = train_judge(corpus, training)
    path = judge_path(folder, corpus, training)
    _save_judge(path, judge, judge_recipe(corpus, training), quality)
    return path


def train_judge(corpus: EmbeddedCorpus, training: JudgeTraining) -> tuple[Judge, dict[str, float]]:
    """Train a judge on scenes of the training split, on one thread, and measure it on the validation split.

    The same recipe gives the same bits on any number of threads, but not on every kind of processor.

    Returns:
        The judge in `eval` mode, and its quality as `measure_judge` reports it, with the seconds it took.
    """
    start = time.monotonic()
    with _one_thread():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(training.seed, "judge weights"))
            judge = Judge(CLASSES)
        clips = _clips(judge, corpus, "train", min(training.num_clips, corpus.num_train))
        synthesised = time.monotonic()
        _fit(judge, clips, training)
        trained = time.monotonic()
        quality = measure_judge(judge, corpus, "val")
    seconds = {"synthesis_seconds": synthesised - start, "fit_seconds": trained - synthesised}
    return judge, {**quality, **seconds}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Deterministic kernels on one thread: sums over several threads are added in another order."""
    num_threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
        torch.use_deterministic_algorithms(deterministic)


@torch.no_grad()
def measure_judge(judge: Judge, corpus: EmbeddedCorpus, split: str) -> dict[str, float]:
    """Measure a judge on a split that it wasn't trained on.

    Returns:
        `<split>_clips`: number of clips n.
        `<split>_class_accuracy`: share of clips whose most probable class is present.
        `<split>_class_set_accuracy`: share of clips with k classes whose k most probable classes are these.
        `<split>_retrieval_accuracy`: share of clips whose own caption is the nearest among all n captions.
        `<split>_text_judge`: mean cosine similarity of clips and their captions.
        `<split>_text_judge_shuffled`: the same with each clip's caption taken from the next clip.
    """
    clips = _clips(judge, corpus, split, corpus.splits()[split])
    found, text = judge.embed_log_mel(clips.log_mel), judge.embed_text(clips.captions)
    present = clips.class_probs > 0
    ranks = found.log_probs.argsort(dim=1, descending=True).argsort(dim=1)
    chosen = ranks < present.sum(dim=1, keepdim=True)
    similarity = found.audio_embedding @ text.T
    ids = _caption_ids(clips.captions)
    n = len(clips.captions)
    return {
        f"{split}_clips": n,
        f"{split}_class_accuracy": present.gather(1, found.log_probs.argmax(1)[:, None]).float().mean().item(),
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
        found = judge.embed_log_mel(add_hiss(clips.log_mel[rows], training.hiss_levels, generator))
        loss = -(clips.class_probs[rows] * found.log_probs).sum(1).mean()
        loss = loss + contrastive_loss(found, judge.embed_text(captions), captions, training.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    judge.eval().requires_grad_(False)


def add_hiss(log_mel: Tensor, levels: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Add noise of a random level and spectral tilt to each clip of log_mel [B, frames, 64].

    Without it the judge learns the corpus' own faint noise floor: a little more noise in the pauses then moves a clip's
    features as far as pure noise does, and all generated clips score alike.
    """
    shape = (len(log_mel), 1, 1)
    level = torch.empty(shape).uniform_(*levels, generator=generator)
    tilt = torch.empty(shape).uniform_(-1, 1, generator=generator)
    gain = (level + tilt * torch.linspace(-1, 1, log_mel.shape[-1])).exp()
    return (log_mel.exp() + gain * torch.rand(log_mel.shape, generator=generator)).log()


def contrastive_loss(output: JudgeOutput, text: Tensor, captions: list[str], temperature: float) -> Tensor:
    """InfoNCE in both directions, in nats; clips with the same caption share the target evenly.

    Args:
        output: the judge's, for B clips.
        text: [B, E] embeddings of their captions.
        captions: the captions, to find equal ones.
        temperature: divides the cosine similarities.
    """
    logits = output.audio_embedding @ text.T / temperature
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
def _clips(judge: Judge, corpus: EmbeddedCorpus, split: str, num_clips: int) -> _Clips:
    """Synthesise the first clips of a split, normalise them, round them to 16 bits and analyse them."""
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


def _save_judge(path: Path, judge: Judge, recipe: dict[str, Any], quality: dict[str, float]) -> None:
    """Write the JSON file, then the weights: where there are weights, there are both."""
    report = {"weights": judge.weights_hash(), "recipe": recipe, "quality": quality}
    with atomic_write(path.with_suffix(".json")) as file:
        json.dump(report, file, indent=2)
    # One entry, because safetensors writes several in any order, and equal judges shall be equal files.
    about = json.dumps({"weights": judge.weights_hash(), "recipe": recipe}, sort_keys=True)
    with atomic_write(path, "wb") as file:
        file.write(save(judge.state_dict(), {"judge": about}))


def _load_judge(path: Path, recipe: dict[str, Any]) -> Judge:
    judge = Judge(recipe["classes"])
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("judge", "{}"))
        judge.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a readable judge ({reason}); delete it, and it is trained again") from error
    if about.get("recipe") != recipe:
        raise ValueError(f"{path}: made by another recipe than its name says; delete it, and it is trained again")
    if about.get("weights") != judge.weights_hash():
        raise ValueError(f"{path}: its weights were altered; delete it, and it is trained again")
    return judge.eval().requires_grad_(False)

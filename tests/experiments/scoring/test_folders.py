"""Two folders to scores: pairs by name, nothing dropped in silence, the same whatever the order, batch or level."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.scoring.folders import Evaluation, evaluate_folders
from experiments.scoring.pairs import captions_by_clip, pair_files
from mntp.audio.files import read_audio, write_audio
from mntp.audio.log_mel import normalise
from mntp.metrics.networks.read_clip import read_clip
from mntp.metrics.score_sets import EmbeddedScores, ScoreSet
from tests.experiments.conftest import SMALL_CORPUS
from tests.experiments.scoring.toy_network import tiny_toolkit, write_sound

NUM_CLIPS = 24


def name(index: int) -> str:
    return f"{index:03d}.wav"


@pytest.fixture(scope="module")
def captions() -> dict[str, str]:
    return {name(i): SMALL_CORPUS.scene("test", i).caption for i in range(NUM_CLIPS)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    for i in range(NUM_CLIPS):
        write_audio(folder / name(i), normalise(torch.from_numpy(SMALL_CORPUS.scene("test", i).waveform)))
    return folder


@pytest.fixture(scope="module")
def noisy(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noisy")
    generator = torch.Generator().manual_seed(0)
    for path in sorted(reference.iterdir()):
        clip = read_audio(path)
        write_audio(folder / path.name, normalise(clip + clip.std() * torch.randn(len(clip), generator=generator)))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def evaluate(
    reference: Path, generated: Path, captions: Any, score_set: ScoreSet, cache: Path, **options: Any
) -> Evaluation:
    captions = None if captions is None else captions_by_clip(captions)
    return evaluate_folders(pair_files(reference, generated, captions), captions, score_set, cache, **options)


# --- the embedded judge -----------------------------------------------------------------------------------------------


def test_identical_sets_give_exactly_zero(judge, reference, captions, cache) -> None:
    metrics = evaluate(reference, reference, captions, EmbeddedScores(judge), cache).metrics
    assert metrics["fd_judge"] == metrics["kl_judge"] == 0.0
    assert 1 < metrics["is_judge"] < len(judge.classes)
    assert metrics["num_clips"] == NUM_CLIPS
    assert (metrics["judge"], metrics["judge_kind"]) == (EmbeddedScores(judge).fingerprint(), "embedded")
    assert metrics["intervals"]["fd_judge"] == metrics["intervals"]["kl_judge"] == [0.0, 0.0]
    assert "24 clips are few: below 128" in metrics["warnings"][0]


def test_noise_is_worse_and_shuffled_captions_lower_the_text_score_only(
    judge, reference, noisy, captions, cache
) -> None:
    score_set = EmbeddedScores(judge)
    clean = evaluate(reference, reference, captions, score_set, cache).metrics
    worse = evaluate(reference, noisy, captions, score_set, cache).metrics
    for score, sign in {"fd_judge": 1, "kl_judge": 1, "is_judge": -1, "text_judge": -1}.items():
        assert sign * worse[score] > sign * clean[score]
    shuffled = {name(i): captions[name((i + 1) % NUM_CLIPS)] for i in range(NUM_CLIPS)}
    wrong = evaluate(reference, reference, shuffled, score_set, cache).metrics
    assert wrong["text_judge"] < clean["text_judge"] - 0.2
    others = [score for score in score_set.scores if score != "text_judge"]
    assert [wrong[s] for s in others] == [clean[s] for s in others]
    without = evaluate(reference, reference, None, score_set, cache).metrics
    assert "text_judge" not in without and [without[s] for s in others] == [clean[s] for s in others]


def test_pairing_is_by_name(judge, reference, captions, cache, tmp_path: Path) -> None:
    """The same clips under other names: the same set, but not the same pairs."""
    for i in range(NUM_CLIPS):
        shutil.copy(reference / name(i), tmp_path / name((i + 1) % NUM_CLIPS))
    metrics = evaluate(reference, tmp_path, captions, EmbeddedScores(judge), cache).metrics
    assert metrics["fd_judge"] < 1e-6
    assert metrics["kl_judge"] > 0.3


def test_batch_size_order_and_level_do_not_matter(judge, reference, noisy, captions, cache, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    for path in sorted(noisy.iterdir(), reverse=True):
        write_audio(quiet / path.name, 0.5 * read_audio(path))
    score_set = EmbeddedScores(judge)
    first = evaluate(reference, noisy, captions, score_set, cache).metrics
    turned = dict(reversed(captions.items()))
    assert evaluate(reference, noisy, turned, score_set, cache).metrics == first
    assert (
        first["protocol"]["generated"]
        != evaluate(reference, quiet, captions, score_set, cache).metrics["protocol"]["generated"]
    )
    for folder, size in ((noisy, 7), (quiet, 32)):
        again = evaluate(reference, folder, captions, score_set, tmp_path / f"cache{size}", batch_size=size).metrics
        assert [again[s] for s in score_set.scores] == pytest.approx([first[s] for s in score_set.scores], rel=1e-3)


def test_intervals_and_pseudo_values_come_with_the_scores(judge, reference, noisy, captions, cache) -> None:
    found = evaluate(reference, noisy, captions, EmbeddedScores(judge), cache)
    again = evaluate(reference, noisy, captions, EmbeddedScores(judge), cache)
    assert found.metrics == again.metrics
    assert set(EmbeddedScores.scores) <= set(found.metrics)
    compared = {"fd_judge", "kl_judge", "is_judge", "text_judge"}
    assert set(found.replicates) == compared  # raw distances aren't compared
    assert set(found.metrics["intervals"]) == {*compared, "fd_judge_raw"}
    for score, (low, high) in found.metrics["intervals"].items():
        assert low < found.metrics[score] < high
    for score, values in found.replicates.items():
        assert len(values) == NUM_CLIPS and values.mean() == pytest.approx(found.metrics[score], rel=1e-9)


# --- the toolkit's ----------------------------------------------------------------------------------------------------


def plain_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Through the root of one covariance, which may be singular."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_y @ root).clip(0)).sum()
    shift = x.mean(0) - y.mean(0)
    return float(shift @ shift + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)


def test_the_toolkit_from_folder_to_scores(tmp_path: Path) -> None:
    """Against its networks called clip by clip: 40 clips, a third of them 1 s longer and with one patch more."""
    score_set = tiny_toolkit(with_clap=True)
    folders = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        for i in range(40):
            write_sound(folder / name(i), 100 * seed + i, samples=52_000 if (i + seed) % 3 == 0 else 33_000)
    texts = {name(i): f"caption {i} of {'x' * i}" for i in range(40)}
    metrics = evaluate(*folders, texts, score_set, tmp_path / "cache").metrics
    embedded: list[dict[str, list[np.ndarray]]] = []
    for folder in folders:
        outputs: dict[str, list[np.ndarray]] = {}
        for i in range(40):
            clip = read_clip(folder / name(i), 16_000)[None]
            for network in (score_set.cnn14, score_set.vggish):
                for output, values in network(clip).items():
                    outputs.setdefault(output, []).append(values[0].double().numpy())
        embedded.append(outputs)
    patches = [np.concatenate(outputs["patches"]) for outputs in embedded]
    assert len({len(clip) for clip in embedded[0]["patches"]}) == 2
    features = [np.stack(outputs["features"]) for outputs in embedded]
    assert metrics["fad"] == pytest.approx(plain_frechet(*patches), rel=1e-3)
    assert metrics["fd"] == pytest.approx(plain_frechet(*features), rel=1e-3)
    p, q = (np.exp(np.stack(outputs["logits"])) for outputs in embedded)
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    assert metrics["kl"] == pytest.approx((p * (np.log(p) - np.log(q + 1e-6))).sum() / 40, rel=1e-4)
    order = np.random.RandomState(2020).permutation(40)
    parts = np.split(q[order], 10)
    scores = [np.exp((part * np.log(part / part.mean(0))).sum(1).mean()) for part in parts]
    assert metrics["is"] == pytest.approx(np.mean(scores), rel=1e-5)
    assert -1 <= metrics["clap"] <= 1
    assert set(score_set.scores) <= set(metrics) and metrics["judge_kind"] == "audioldm"
    same = evaluate(folders[0], folders[0], texts, score_set, tmp_path / "cache").metrics
    assert same["fd"] == same["fad"] == 0.0
    assert -1e-5 < same["kl"] < 0

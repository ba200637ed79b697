"""The toolkit's scores against plain numpy written from its definitions, and apart from their likely mistakes."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from mntp.metrics.audioldm_scores import ToolkitScores
from mntp.metrics.kernel import kernel_distance
from mntp.metrics.networks.cnn14 import Cnn14
from mntp.metrics.networks.vggish import VGGish
from mntp.metrics.score_sets import Embeddings

Array = NDArray[np.float64]
NUM_CLIPS, WIDTH, NUM_CLASSES, PATCH_WIDTH = 34, 12, 9, 5


def embeddings(seed: int, num_clips: int = NUM_CLIPS, rows_a_clip: tuple[int, ...] = (1, 3, 2)) -> Embeddings:
    """What three networks might give: rectified features, logits, patches of clips of several lengths, embeddings."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(WIDTH, WIDTH, generator=generator)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rows = [rows_a_clip[clip % len(rows_a_clip)] for clip in range(num_clips)]
    return {
        "features": [(draw(WIDTH) @ mixing + 0.3 * seed).relu() for _ in range(num_clips)],
        "logits": [2 * draw(NUM_CLASSES) for _ in range(num_clips)],
        "patches": [draw(count, PATCH_WIDTH) * (1 + seed) + draw(1, PATCH_WIDTH) for count in rows],
        "audio_embedding": [draw(8) for _ in range(num_clips)],
    }


def toolkit() -> ToolkitScores:
    """Tiny networks, which hear nothing in these tests."""
    return ToolkitScores(Cnn14(width=1, num_classes=NUM_CLASSES), VGGish(width=1, num_hidden=2), None)


def compute(reference: Embeddings, generated: Embeddings, text: Tensor | None = None) -> dict[str, Any]:
    return toolkit().compute(reference, generated, text)


def value(name: str, reference: Embeddings, generated: Embeddings) -> float:
    return float(compute(reference, generated)[name].value)


def stacked(clips: list[Tensor]) -> Array:
    return np.stack([clip.double().numpy() for clip in clips])


def frechet(x: Array, y: Array, ddof: int = 1) -> float:
    cov_x, cov_y = np.cov(x, rowvar=False, ddof=ddof), np.cov(y, rowvar=False, ddof=ddof)
    root = scipy.linalg.sqrtm(cov_x @ cov_y)
    shift = x.mean(0) - y.mean(0)
    return float(shift @ shift + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root).real)


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def divergence(reference: Array, generated: Array, activate: Any = softmax, epsilon: float = 1e-6) -> float:
    total = 0.0
    for logits_ref, logits_gen in zip(reference, generated, strict=True):
        p_ref, p_gen = activate(logits_ref), activate(logits_gen)
        for ref, gen in zip(p_ref, p_gen, strict=True):
            total += ref * (np.log(ref) - np.log(gen + epsilon))
    return total / len(reference)


def inception(logits: Array, shuffled: bool = True, splits: int = 10, activate: Any = softmax) -> float:
    if shuffled:
        logits = logits[np.random.RandomState(2020).permutation(len(logits))]
    scores = []
    for split in range(splits):
        part = [activate(row) for row in logits[split * len(logits) // splits : (split + 1) * len(logits) // splits]]
        mean = sum(part) / len(part)
        scores.append(np.exp(np.mean([np.sum(p * (np.log(p) - np.log(mean))) for p in part])))
    return float(np.mean(scores))


def plain_kernel_distance(
    generated: Array, reference: Array, generated_first: bool = True, unbiased: bool = True
) -> float:
    def kernel(a: Array, b: Array) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    generator = np.random.RandomState(2020)
    size = min(len(generated), len(reference), 1000)
    first, second = (generated, reference) if generated_first else (reference, generated)
    found = []
    for _ in range(100):
        x = first[generator.choice(len(first), size, replace=False)]
        y = second[generator.choice(len(second), size, replace=False)]
        within = sum(
            kernel(rows[i], rows[j])
            for rows in (x, y)
            for i in range(size)
            for j in range(size)
            if not unbiased or i != j
        )
        across = sum(kernel(a, b) for a in x for b in y)
        found.append(within / (size * (size - 1) if unbiased else size**2) - 2 * across / size**2)
    return float(np.mean(found))


def test_fd_is_that_of_one_row_of_features_a_clip() -> None:
    reference, generated = embeddings(0), embeddings(1)
    x, y = stacked(reference["features"]), stacked(generated["features"])
    found = value("fd", reference, generated)
    assert found == pytest.approx(frechet(x, y), rel=1e-6)
    assert found != pytest.approx(frechet(x, y, ddof=0), rel=1e-3)


def test_fad_pools_the_patches_of_all_clips() -> None:
    """A clip of three patches weighs three times as much as one of one."""
    reference, generated = embeddings(0), embeddings(1, rows_a_clip=(2, 4))
    x, y = (np.concatenate([clip.double().numpy() for clip in h["patches"]]) for h in (reference, generated))
    found = value("fad", reference, generated)
    assert len(x) != len(y)
    assert found == pytest.approx(frechet(x, y), rel=1e-6)
    clip_means = [np.stack([clip.double().numpy().mean(0) for clip in h["patches"]]) for h in (reference, generated)]
    for wrong in (frechet(x, y, ddof=0), frechet(*clip_means)):
        assert found != pytest.approx(wrong, rel=1e-3)


def test_kl_is_of_the_softmax_from_reference_to_generated() -> None:
    reference, generated = embeddings(0), embeddings(1)
    x, y = stacked(reference["logits"]), stacked(generated["logits"])
    found = value("kl", reference, generated)
    assert found == pytest.approx(divergence(x, y), rel=1e-9)
    for wrong in (divergence(x, y, sigmoid), divergence(y, x), divergence(x, y[::-1])):
        assert found != pytest.approx(wrong, rel=1e-3)
    assert found != pytest.approx(divergence(x, y, epsilon=0.0), rel=1e-7)


def test_kl_of_identical_sets_is_a_little_less_than_zero() -> None:
    """The constant stands in the generated logarithm only: sum_c p (log p - log (p + 1e-6)) = -K 1e-6, about."""
    found = value("kl", embeddings(0), embeddings(0))
    assert found == pytest.approx(-NUM_CLASSES * 1e-6, rel=0.02)


def test_is_averages_ten_splits_of_the_toolkits_permutation() -> None:
    generated = embeddings(1)
    logits = stacked(generated["logits"])
    found = value("is", embeddings(0), generated)
    assert found == pytest.approx(inception(logits), rel=1e-9)
    assert found == value("is", embeddings(5), generated)  # the reference has no part in it
    for wrong in (
        inception(logits, shuffled=False),
        inception(logits, splits=1),
        inception(logits, activate=lambda row: sigmoid(row) / sigmoid(row).sum()),
    ):
        assert found != pytest.approx(wrong, rel=1e-3)


def test_is_of_fewer_clips_than_splits_is_missing_and_the_rest_is_there() -> None:
    scores = compute(embeddings(0, 9), embeddings(1, 9))
    assert set(scores) == {"fd", "kad", "fad", "fad_jackknife", "kl", "kid"}
    assert "is" in compute(embeddings(0, 10), embeddings(1, 10))


def test_kid_draws_generated_before_reference_and_is_unbiased_within_sets() -> None:
    reference, generated = embeddings(0, 12), embeddings(1, 9)
    x, y = stacked(generated["features"]), stacked(reference["features"])
    expected = plain_kernel_distance(x, y)
    found, _ = kernel_distance(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(expected, rel=1e-9)
    for wrong in (plain_kernel_distance(x, y, generated_first=False), plain_kernel_distance(x, y, unbiased=False)):
        assert found != pytest.approx(wrong, rel=1e-4)


def test_kid_of_the_set_is_that_of_its_features() -> None:
    reference, generated = embeddings(0, 8), embeddings(1, 8)
    expected = plain_kernel_distance(stacked(generated["features"]), stacked(reference["features"]))
    assert value("kid", reference, generated) == pytest.approx(expected, rel=1e-9)


def test_clap_is_a_mean_cosine_neither_clamped_nor_scaled() -> None:
    generated = embeddings(1)
    audio = stacked(generated["audio_embedding"])
    text = torch.randn(NUM_CLIPS, 8, generator=torch.Generator().manual_seed(9)) - torch.from_numpy(audio).float()
    cosines = [a @ t / np.sqrt((a @ a) * (t @ t)) for a, t in zip(audio, text.double().numpy(), strict=True)]
    found = compute(embeddings(0), generated, text)["clap"].value
    assert found == pytest.approx(np.mean(cosines), rel=1e-9) and found < -0.3
    assert found != pytest.approx(np.clip(cosines, 0, None).mean(), rel=1e-3)
    assert found != pytest.approx(100 * np.mean(cosines), rel=1e-3)
    assert "clap" not in compute(embeddings(0), generated)


def test_captions_of_other_clips_lower_clap() -> None:
    generated = embeddings(1)
    own = torch.stack(generated["audio_embedding"]) + 0.5
    right, wrong = (compute(embeddings(0), generated, text)["clap"].value for text in (own, own.roll(1, 0)))
    assert wrong < right - 0.3


def values_without_each_clip(reference: Embeddings, generated: Embeddings, text: Tensor) -> list[dict[str, float]]:
    """All scores, computed anew without each clip."""
    found = []
    for left in range(NUM_CLIPS):
        rows = [clip for clip in range(NUM_CLIPS) if clip != left]
        again = [{key: [clips[clip] for clip in rows] for key, clips in h.items()} for h in (reference, generated)]
        found.append({name: score.value for name, score in compute(*again, text[rows]).items()})
    return found


def test_pseudo_values_are_those_of_the_scores_without_each_clip() -> None:
    """But for IS, whose splits keep their clips, KID, whose cross term has other weights, and KAD's kernel width."""
    reference, generated = embeddings(0), embeddings(1, rows_a_clip=(2, 4))
    text = torch.randn(NUM_CLIPS, 8, generator=torch.Generator().manual_seed(9))
    scores, without = compute(reference, generated, text), values_without_each_clip(reference, generated, text)
    for name in ("fd", "fad", "kl", "clap"):
        left_out = np.array([values[name] for values in without])
        expected = scores[name].value - (NUM_CLIPS - 1) * (left_out - left_out.mean())
        assert scores[name].clips.numpy() == pytest.approx(expected, rel=1e-6), name
    for name, score in scores.items():
        assert len(score.clips) == NUM_CLIPS and score.clips.mean().item() == pytest.approx(score.value, rel=1e-9), name
    corrected = NUM_CLIPS * scores["fad"].value - (NUM_CLIPS - 1) * np.mean([values["fad"] for values in without])
    assert scores["fad_jackknife"].value == pytest.approx(corrected, rel=1e-6)
    assert scores["fad_jackknife"].value < scores["fad"].value
    assert {name for name, score in scores.items() if not score.comparable} == {"fd", "fad"}


def test_few_clips_are_warned_of() -> None:
    assert toolkit().warnings(256) == []
    (warning,) = toolkit().warnings(255)
    assert "255 clips are few: below 256" in warning

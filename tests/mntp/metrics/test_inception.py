import math

import pytest
import torch

from mntp.metrics.inception import inception_score, inception_scores, scores_without_each_clip


def test_sure_and_even_gives_the_number_of_classes():
    one_hot = torch.eye(5).repeat(4, 1).log()
    assert inception_score(one_hot) == pytest.approx(5.0, rel=1e-12)


def test_equal_rows_give_one():
    row = torch.randn(1, 6, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    assert inception_score(row.repeat(10, 1)) == pytest.approx(1.0, abs=1e-6)


def test_the_mixture_is_over_probabilities_not_logits():
    log_p = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    mixture = [0.7, 0.3]
    kl = [sum(p * math.log(p / q) for p, q in zip(row, mixture, strict=True)) for row in ((0.9, 0.1), (0.5, 0.5))]
    assert inception_score(log_p) == pytest.approx(math.exp(sum(kl) / 2), rel=1e-6)


def test_splits_are_consecutive_and_averaged():
    """Sorted one-hot rows: varied over the whole set, but each half holds half of the classes."""
    log_p = torch.eye(4).repeat_interleave(3, 0).log()
    assert inception_score(log_p, num_splits=2) == pytest.approx(2.0)
    first, second = inception_score(log_p[:5]), inception_score(log_p[5:11])
    assert inception_score(log_p[:11], num_splits=2) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize(
    ("log_p", "num_splits", "message"),
    [
        (torch.zeros(3, 1), 4, "the 3 rows, got 4"),
        (torch.zeros(3, 1), 0, "got 0"),
        (torch.zeros(3), 1, r"\[n, K\]"),
        (torch.full((3, 2), math.nan), 1, "NaN"),
    ],
)
def test_bad_input(log_p, num_splits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(log_p, num_splits)


@pytest.mark.parametrize("num_splits", [1, 3])
def test_leaving_clips_out_keeps_the_others_in_their_splits(num_splits):
    log_p = (2 * torch.randn(17, 6, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    edges = [split * 17 // num_splits for split in range(num_splits + 1)]
    scores = inception_scores(log_p, num_splits)
    expected = []
    for row in range(17):
        split = next(s for s in range(num_splits) if edges[s] <= row < edges[s + 1])
        others = [r for r in range(edges[split], edges[split + 1]) if r != row]
        expected.append((scores.sum() - scores[split] + inception_score(log_p[others])) / num_splits)
    torch.testing.assert_close(scores_without_each_clip(log_p, num_splits), torch.stack(expected), rtol=1e-12, atol=0)


def test_a_split_of_one_clip_cannot_lose_it():
    with pytest.raises(ValueError, match="4 splits needs 8 rows, got 7"):
        scores_without_each_clip(torch.zeros(7, 1), 4)

import math

import pytest
import torch

from mntp.metrics.inception import inception_score


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

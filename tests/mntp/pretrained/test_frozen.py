"""Public models run in float32 proper, and what tells two of them apart."""

from collections.abc import Callable, Iterator

import pytest
import torch

from mntp.io.fingerprint import check_content, hash_tensors
from mntp.pretrained.precision import float32

conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul


def precision() -> tuple[str, str, bool, bool]:
    return (
        conv.fp32_precision,
        matmul.fp32_precision,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = precision()
    yield
    conv.fp32_precision, matmul.fp32_precision, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = (
        before
    )


@pytest.mark.parametrize(
    "setting",
    [
        lambda: None,
        lambda: setattr(matmul, "fp32_precision", "tf32"),
        lambda: setattr(conv, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
    ],
)
def test_settings_around_do_not_count_and_come_back(setting: Callable[[], None]) -> None:
    setting()
    around = precision()
    with torch.autocast("cpu", dtype=torch.bfloat16), float32():
        assert precision() == ("ieee", "ieee", False, True)
        assert not torch.is_grad_enabled()
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert precision() == around
    with pytest.raises(RuntimeError, match="inside"), float32():
        raise RuntimeError("inside")
    assert precision() == around
    assert torch.is_grad_enabled()


def test_the_hash_is_over_values_names_shapes_and_facts() -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
    found = hash_tensors(weights, scale=0.5)
    assert len(found) == 12
    assert hash_tensors(dict(reversed(weights.items())), scale=0.5) == found
    assert hash_tensors({name: tensor.half() for name, tensor in weights.items()}, scale=0.5) == found
    assert hash_tensors(weights | {"index": torch.arange(3)}, scale=0.5) == found
    others = [
        hash_tensors(weights, scale=0.25),
        hash_tensors(weights),
        hash_tensors({"a": weights["a"].view(3, 2), "b": weights["b"]}, scale=0.5),
        hash_tensors({"a": weights["a"], "c": weights["b"]}, scale=0.5),
        hash_tensors({"a": weights["a"].nextafter(torch.tensor(9.0)), "b": weights["b"]}, scale=0.5),
    ]
    assert len({found, *others}) == 6


def test_another_content_is_refused_with_both_hashes() -> None:
    assert check_content("a/b", "123", None) == check_content("a/b", "123", "123") == "123"
    with pytest.raises(ValueError, match=r"a/b: holds weights 123, expected 456: give the checkpoint"):
        check_content("a/b", "123", "456")

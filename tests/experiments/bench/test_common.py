"""What the benchmarks share: turns, counts and the line that is printed."""

import json

import pytest
import torch
from torch.nn import functional as F

from experiments.bench.common import alternate, machine, median_ratio, medians, print_line, random_batch
from experiments.bench.flops import count_flops
from mntp.batch import TextStream

CPU = torch.device("cpu")


def test_variants_take_turns_and_the_warm_up_is_not_timed() -> None:
    done: list[tuple[str, int]] = []
    variants = {name: lambda turn, name=name: done.append((name, turn)) for name in "ab"}
    taken = alternate(variants, CPU, repeats=2, warm_up=1)
    assert done == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 2, "b": 2}


def test_medians_and_the_ratio_turn_by_turn() -> None:
    taken = {"slow": [4.0, 40.0, 6.0], "fast": [2.0, 10.0, 2.0]}
    assert medians(taken) == {"slow": 6.0, "fast": 2.0}
    assert median_ratio(taken["slow"], taken["fast"]) == 3.0  # of 2, 4 and 3; the slow turn was slow for both


def test_a_line_of_json_with_rounded_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("name", seconds={"a": 1 / 3}, rates=[2 / 3, 123456.0], count=123456, none=None)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "bench": "name", "seconds": {"a": 0.3333}, "rates": [0.6667, 123500.0], "count": 123456, "none": None
    }  # fmt: skip


def test_the_machine_is_named() -> None:
    told = machine(CPU)
    assert told["device"] and told["cores"] >= 1 and told["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_products_are_counted_forwards_and_backwards() -> None:
    x, weight = torch.randn(5, 3), torch.randn(3, 7, requires_grad=True)
    assert count_flops(lambda: x @ weight) == 2 * 5 * 3 * 7
    assert count_flops(lambda: (x @ weight).sum().backward()) == 2 * 2 * 5 * 3 * 7  # x needs no gradient


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_is_counted_as_its_two_products_on_every_device(device: str, dropout: float) -> None:
    q, k, v = (torch.randn(2, 4, 6, 8, device=device, requires_grad=True) for _ in range(3))

    def attend() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)

    forward = 2 * (2 * 2 * 4 * 6 * 6 * 8)
    assert count_flops(attend) == forward
    assert count_flops(lambda: attend().sum().backward()) == 3 * forward


def test_random_clips_are_the_same_each_time() -> None:
    one, other = (random_batch(8, 3, {"words": TextStream(5, 4)}, 2) for _ in range(2))
    assert one.tokens.shape == (2, 8, 3) and one.text["words"].states.shape == (2, 4, 5)
    assert torch.equal(one.tokens, other.tokens)
    assert not torch.equal(one.tokens[0], one.tokens[1])

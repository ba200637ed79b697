"""CUDA graphs, played on the CPU: what is captured is the operations alone, and a replay does nothing else.

What this can't show is that a GPU takes the capture.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.bench.flops import count_flops
from mntp.conditioning.guidance import Guidance
from mntp.heads import DiffusionSampling
from mntp.samplers import ClipNoise
from mntp.samplers.cuda_graphs import Captured, captured_sample
from mntp.systems import AudioSystem
from tests.systems_support import SAMPLING, D, N, tiny_batch, tiny_system


class OnGpu(Tensor):
    """A CPU tensor that says that it is on a GPU, as does all that is made of it."""

    is_cuda = True


class Recorder(TorchDispatchMode):
    """Keeps every operation, with the tensors that it read and wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result


class Graph:
    """Stands for a CUDAGraph: a replay runs the recorded operations on the memory where they ran."""

    made: ClassVar[list["Graph"]] = []

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.num_replays = 0
        self.made.append(self)

    def pool(self) -> "Graph":
        return self.made[0]

    @torch.no_grad()
    def replay(self) -> None:
        self.num_replays += 1
        for func, args, kwargs, result in self.recorder.operations:
            aliases = [value.alias_info for value in func._schema.returns]
            if any(alias is not None and not alias.is_write for alias in aliases):
                continue  # a view, of memory that is written anew
            again = func(*args, **kwargs)
            if all(alias is None for alias in aliases):
                for kept, value in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(kept, Tensor):
                        kept.copy_(value)


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs that are made in a test."""

    @contextmanager
    def capture(graph: Graph, **_: Any) -> Iterator[None]:
        with graph.recorder:
            yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(Graph, "made", [])
    for name, fake in {
        "Stream": lambda *_: stream,
        "current_stream": lambda: stream,
        "current_device": lambda: 0,
        "stream": nullcontext,
        "device": nullcontext,
        "CUDAGraph": Graph,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return Graph.made


def on_gpu(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(OnGpu)


def drawn(system: AudioSystem, place: Callable[[Tensor], Tensor], seeds: range, known: int = 0) -> Tensor:
    """Tokens of a batch whose prompts are put into place, on the pretended GPU or as they are."""
    with torch.no_grad():
        prompt = system.prompt(tiny_batch(len(seeds)).text)
        fake = system.prompt.fake(len(prompt))
    given = torch.randn(len(seeds), known, D, generator=torch.Generator().manual_seed(1))
    noise = ClipNoise(seeds, torch.device("cpu"))
    return torch.Tensor(list(system.decode(place(prompt), place(fake), noise, given, N))[-1].tokens)


def with_graphs(row: str) -> AudioSystem:
    system = tiny_system(row).eval()
    system.decoding = replace(system.decoding, cuda_graphs=True)
    return system


@pytest.mark.parametrize("head", ["DiffusionHead", "FlowMatchingHead", "MixtureHead"])
@pytest.mark.parametrize(
    ("row", "changes"),
    [
        ("A", {}),
        ("G", {}),
        ("G", {"tokens_per_call": 5}),
        ("G", {"tokens_per_call": 4, "ramp": True}),
        ("G", {"guidance": Guidance(1.0)}),
        ("shuffled", {"tokens_per_call": 3, "random_order": True}),
        ("K", {}),
    ],
)
def test_replays_draw_what_eager_calls_draw(graphs: list[Graph], row: str, changes: dict[str, Any], head: str) -> None:
    system = tiny_system(row, head=head).eval()
    system.decoding = replace(
        system.decoding, sampling={**SAMPLING.get(head, {"num_steps": 4}), "x0_limit": 4.0}, cuda_graphs=True, **changes
    )
    for seeds, known in ((range(3), 0), (range(3, 6), 2), (range(2), 1)):  # again, from another place, an odd batch
        expected = drawn(system, lambda tensor: tensor, seeds, known)
        assert not any(graph.num_replays for graph in graphs) or seeds.start or known
        torch.testing.assert_close(drawn(system, on_gpu, seeds, known), expected, rtol=1e-4, atol=1e-5)
    assert sum(graph.num_replays for graph in graphs) > len(graphs) > 0


@pytest.mark.parametrize("row", ["A", "K"])
def test_nothing_is_captured_unless_it_is_asked_for(graphs: list[Graph], row: str) -> None:
    drawn(tiny_system(row).eval(), on_gpu, range(3))
    assert graphs == []
    drawn(with_graphs(row), on_gpu, range(3))
    assert graphs != []


def test_a_graph_is_kept_for_the_next_batch(graphs: list[Graph]) -> None:
    system = with_graphs("K")
    drawn(system, on_gpu, range(3))
    before = len(graphs)
    drawn(system, on_gpu, range(3, 6))
    assert len(graphs) == before


def test_weights_that_lie_elsewhere_are_captured_anew(graphs: list[Graph]) -> None:
    system = with_graphs("K")
    drawn(system, on_gpu, range(3))
    with torch.no_grad():
        for parameter in system.head.parameters():
            parameter.data = 2 * parameter
    torch.testing.assert_close(
        drawn(system, on_gpu, range(3)), drawn(system, lambda tensor: tensor, range(3)), rtol=1e-4, atol=1e-5
    )


def test_what_was_captured_in_inference_mode_is_not_written_to_outside() -> None:
    double = Captured(lambda x: 2 * x)
    with torch.inference_mode():
        assert double(on_gpu(torch.ones(2))).tolist() == [2, 2]
    with torch.no_grad():
        assert double(on_gpu(torch.full((2,), 3.0))).tolist() == [6, 6]


def test_counters_see_every_operation(graphs: list[Graph]) -> None:
    product = Captured(torch.mm)
    x = on_gpu(torch.ones(4, 4))
    product(x, x)
    assert count_flops(lambda: product(x, x)) == 2 * 4**3
    assert [graph.num_replays for graph in graphs] == [1]


def test_each_guidance_scale_is_no_graph_of_its_own(graphs: list[Graph]) -> None:
    head = tiny_system().head
    z, noise = on_gpu(torch.randn(2, head.cond_dim)), torch.randn(2, 4, D)
    sample, sampling = captured_sample(head, z), DiffusionSampling(num_steps=4)
    for scale in (3.0, 1.5):
        expected = head.sample(torch.Tensor(z), noise, sampling, z_uncond=torch.Tensor(-z), guidance_scale=scale)
        found = sample(z, noise, sampling, z_uncond=-z, guidance_scale=scale)
        torch.testing.assert_close(torch.Tensor(found), expected, rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1


def test_streams_are_those_of_the_device_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(entered.append(device)))
    x = on_gpu(torch.ones(2))
    Captured(torch.neg)(x)
    assert entered == [x.device]


def test_settings_given_as_lists_name_a_graph_too() -> None:
    lists, tuples = (DiffusionSampling(guided_steps=part) for part in ([0.0, 0.5], (0.0, 0.5)))  # type: ignore[arg-type]
    assert hash(lists) == hash(tuples)

"""What the benchmarks share: the machine, what it can do, alternating timings, a random batch, and the JSON line."""

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.runs.record import provenance
from mntp.batch import TextStates, TextStream, TokenBatch

DIGITS = 4  # of a measured number
CEILING_REPEATS = 5
MATRIX_SIZE = {"cuda": 8192, "cpu": 1536}
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 27}


def print_line(bench: str, **report: Any) -> None:
    """Print one line of JSON; floats to four digits, None where nothing was measured."""
    print(json.dumps({"bench": bench, **_rounded(report)}))  # noqa: T201


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores and threads, the name of the device, versions and commit."""
    origin = provenance()
    return {
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "versions": origin["versions"],
        "commit": origin["commit"],
        "dirty": origin["dirty"],
    }


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronise(device: torch.device) -> None:
    """Wait for what the device has been given; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(device: torch.device, work: Callable[..., object], *arguments: Any) -> float:
    """Seconds until the device has done the work, called with the arguments."""
    synchronise(device)
    began = time.perf_counter()
    work(*arguments)
    synchronise(device)
    return time.perf_counter() - began


def alternate(
    variants: Mapping[str, Callable[[int], object]], device: torch.device, repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time several ways of doing the same work in turns, so that a busy machine slows them all.

    Args:
        variants: work by name; called with the number of the turn, which starts at 0 again after the warm-up.
        device: that does it.
        repeats: timed turns.
        warm_up: turns before them, which count for nothing.

    Returns:
        Seconds of each variant's turns, in order.
    """
    for turn in range(warm_up):
        for work in variants.values():
            seconds_of(device, work, turn)
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats):
        for name, work in variants.items():
            taken[name].append(seconds_of(device, work, turn))
    return taken


def medians(taken: Mapping[str, list[float]]) -> dict[str, float]:
    """Median seconds of each variant."""
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the turns of how many times faster the second variant was in the same turn."""
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of large square matrix products, the best of five: the ceiling of what multiplies matrices."""
    size = MATRIX_SIZE[device.type]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    left @ right
    return 2 * size**3 / min(seconds_of(device, torch.matmul, left, right) for _ in range(CEILING_REPEATS))


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a large copy, the best of five: the ceiling of what reads memory."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = source.clone()
    taken = min(seconds_of(device, target.copy_, source) for _ in range(CEILING_REPEATS))
    return 2 * source.numel() / taken


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Bytes in use at the worst moment of the work: the GPU's; on a CPU the whole process's, since it started."""
    if device.type != "cuda":
        work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device)


def random_batch(num_tokens: int, token_dim: int, streams: dict[str, TextStream], batch_size: int) -> TokenBatch:
    """Random clips with captions that fill their slots, on the CPU."""
    generator = torch.Generator().manual_seed(0)

    def states(stream: TextStream) -> TextStates:
        states = torch.randn(batch_size, stream.max_length, stream.dim, generator=generator)
        return TextStates(states, torch.full((batch_size,), stream.max_length))

    return TokenBatch(
        tokens=torch.randn(batch_size, num_tokens, token_dim, generator=generator),
        valid=torch.ones(batch_size, num_tokens, dtype=torch.bool),
        text={name: states(stream) for name, stream in streams.items()},
        index=torch.arange(batch_size),
        captions=["random numbers"] * batch_size,
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "cpu"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value

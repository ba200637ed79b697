"""`mntp bench sample`: what a token of a clip costs to draw, beside a plain variant without cache or shared work."""

import copy
import dataclasses
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from experiments.bench.common import best_device, copy_rate, machine, matrix_rate, print_line, random_batch, seconds_of
from experiments.bench.flops import count_bytes, count_flops
from experiments.bench.plain import decode_plain, plain_head
from experiments.config.resolve import build_model, load_config, resolve
from mntp.inference.streaming import Windows
from mntp.layers import matrices_to_bfloat16
from mntp.samplers import ClipNoise, Decoding, DecodingState
from mntp.systems import AudioMNTP, AudioNTP
from mntp.tokenizers.layout import mel_layout

# (tokens known, tokens wanted) -> the decoding, a token or several at each step
Decode = Callable[[int, int], Iterator[DecodingState]]


def sample(
    config: list[Path],
    batch_size: int = 1,
    places: int = 6,
    repeats: int = 3,
    solver: str = "sde_dpmpp_2m",
    steps: int = 25,
    tokens_per_call: int = 4,
    bfloat16: bool = False,
) -> None:
    """Time the drawing of single tokens along a clip, several ways in turns, and print one line of JSON.

    Ways: `plain` (no cache, every diffusion step worked out anew), `engine` (the config's decoding), `solver` (another
    solver with fewer steps) and, for AudioMNTP, `parallel` (several tokens a call, as `engine` and as `solver`).
    Seconds of a clip are those of its tokens at the measured places, times their number. Those to the first window end
    when a stream's first sound can be decoded, the tokenizer not counted. The ceiling is the time that
    the counted operations and the bytes of their operands take at the machine's measured rates, whichever is longer.

    Args:
        config: config files of AudioNTP or AudioMNTP; each is laid over those before it. Weights are random.
        batch_size: clips at once.
        places: how many places along the clip are measured.
        repeats: turns.
        solver: of the ways with fewer steps.
        steps: diffusion steps of those.
        tokens_per_call: tokens of a call of the parallel ways.
        bfloat16: matrix products of all ways but `plain` in bfloat16.

    Raises:
        ValueError: a number is out of range, another system, or the config is wrong.
    """
    if min(batch_size, places, repeats) < 1:
        raise ValueError(f"got batch_size={batch_size}, places={places}, repeats={repeats}; expected numbers above 0")
    device = best_device()
    system = build_model(resolve(*(load_config(path) for path in config))).to(device).eval()
    if not isinstance(system, AudioNTP):
        raise ValueError(f"bench sample: expected a config of AudioNTP or AudioMNTP, got {type(system).__name__}")
    reference, num_tokens = system.decoding, system.num_tokens
    if not 1 <= tokens_per_call <= num_tokens // 3:
        raise ValueError(f"got tokens_per_call={tokens_per_call}, expected 1 to {num_tokens // 3}, a third of the clip")
    sampling = dataclasses.asdict(reference.head_sampling) | {"solver": solver, "num_steps": steps}
    fewer = system.check_decoding(dataclasses.replace(reference, sampling=sampling))
    text = random_batch(num_tokens, system.token_dim, system.hparams["streams"], batch_size).text
    text = {name: type(states)(states.states.to(device), states.lengths.to(device)) for name, states in text.items()}
    with torch.no_grad():
        prompt = system.prompt(text)
        fake = system.prompt.fake(batch_size).detach()
        tokens = torch.randn(batch_size, num_tokens, system.token_dim, device=device)
    head, engine = plain_head(system.head), system
    if bfloat16:
        engine = copy.deepcopy(system)
        matrices_to_bfloat16(engine)

    def way(decoding: Decoding) -> Decode:
        def decode(known: int, wanted: int) -> Iterator[DecodingState]:
            engine.decoding = decoding
            return engine.stream(text, range(batch_size), tokens[:, :known], wanted)

        return decode

    def plain(known: int, wanted: int) -> Iterator[DecodingState]:
        system.decoding = reference
        return decode_plain(system, head, prompt, fake, ClipNoise(range(batch_size), device), tokens[:, :known], wanted)

    ways: dict[str, Decode] = {"plain": plain, "engine": way(reference), "solver": way(fewer)}
    drawn = dict.fromkeys(ways, 1)
    if isinstance(system, AudioMNTP) and system.target_position_embed is not None:
        for name, decoding in {"parallel": reference, "parallel_solver": fewer}.items():
            ways[name] = way(dataclasses.replace(decoding, tokens_per_call=tokens_per_call))  # type: ignore[call-arg]
            drawn[name] = tokens_per_call
    spread = [round((i + 0.5) * (num_tokens - 3 * tokens_per_call) / places) for i in range(places)]
    taken = _times(ways, drawn, spread, repeats, device)
    layout = mel_layout(system.token_dim)
    first = (1 + Windows().lookahead) * layout.tokens_per_frame
    heard = {name: seconds_of(device, lambda decode=decode: list(decode(0, first))) for name, decode in ways.items()}
    clip = {name: num_tokens * statistics.mean(seconds) for name, seconds in taken.items()}
    middle = spread[len(spread) // 2]
    flops, moved = (
        {name: num_tokens * _counted(count, decode, middle, drawn[name]) for name, decode in ways.items()}
        for count in (count_flops, count_bytes)
    )
    rates = {"flops": matrix_rate(device, torch.bfloat16 if bfloat16 else torch.float32), "bytes": copy_rate(device)}
    seconds = num_tokens / layout.tokens_per_frame * layout.frame_seconds
    print_line(
        "sample",
        **machine(device),
        config=[str(path) for path in config],
        system=type(system).__name__,
        parameters=sum(p.numel() for p in system.parameters()),
        clip={"tokens": [num_tokens, system.token_dim], "seconds": seconds},
        batch_size=batch_size,
        precision="bfloat16" if bfloat16 else "float32",
        decoding={name: _said(name, reference, fewer, drawn[name]) for name in ways},
        places=spread,
        repeats=repeats,
        seconds_per_clip={name: value / batch_size for name, value in clip.items()},
        seconds_to_first_window=heard,
        real_time_factor={name: value / batch_size / seconds for name, value in clip.items()},
        speed_up={name: clip["plain"] / value for name, value in clip.items()},
        flops_per_clip={name: value // batch_size for name, value in flops.items()},
        bytes_per_clip={name: value // batch_size for name, value in moved.items()},
        ceiling_per_second=rates,
        fraction_of_ceiling={
            name: max(flops[name] / rates["flops"], moved[name] / rates["bytes"]) / clip[name] for name in ways
        },
    )


def _times(
    ways: dict[str, Decode], drawn: dict[str, int], spread: list[int], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Median seconds of one token at each place, of each way, taken in turns after one untimed."""
    taken: dict[str, list[list[float]]] = {name: [[] for _ in spread] for name in ways}
    for turn in range(repeats + 1):
        for number, place in enumerate(spread):
            for name, decode in ways.items():
                steps = decode(place, place + 3 * drawn[name])
                next(steps)  # what is known goes through the backbone, and the first tokens after it
                next(steps)  # on a GPU, what follows is captured for the rest of the clip
                seconds = seconds_of(device, next, steps)
                if turn:
                    taken[name][number].append(seconds / drawn[name])
    return {name: [statistics.median(place) for place in each] for name, each in taken.items()}


def _counted(count: Callable[[Callable[[], object]], int], decode: Decode, place: int, drawn: int) -> int:
    steps = decode(place, place + 2 * drawn)
    next(steps)
    return count(lambda: next(steps)) // drawn


def _said(name: str, reference: Decoding, fewer: Decoding, drawn: int) -> dict[str, Any]:
    decoding = fewer if "solver" in name else reference
    sampling = dataclasses.asdict(decoding.head_sampling)
    return {"solver": sampling.get("solver"), "steps": sampling.get("num_steps"), "tokens_per_call": drawn}

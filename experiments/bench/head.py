"""`mntp bench head`: what each solver of the diffusion head costs, beside one that shares nothing between steps."""

from collections.abc import Callable

import torch

from experiments.bench.common import alternate, best_device, machine, median_ratio, medians, print_line
from experiments.bench.flops import count_bytes, count_flops
from experiments.bench.plain import plain_head
from mntp.heads import DiffusionHead, DiffusionSampling, Head


def head(
    token_dim: int = 128,
    cond_dim: int = 768,
    width: int = 1024,
    depth: int = 3,
    batch_size: int = 1,
    steps: int = 100,
    fewer_steps: int = 20,
    guided: bool = True,
    repeats: int = 5,
) -> None:
    """Time the drawing of one token for each clip of a batch, by every solver, and print one line of JSON.

    Each solver is timed with `steps` and `fewer_steps` steps; `plain` is the first solver, all of it worked out anew
    at each step; `half_guided` the first solver with the first half of the steps guided.

    Args:
        token_dim: values of a token.
        cond_dim: width of a context.
        width: of the network.
        depth: of the network.
        batch_size: tokens drawn at once.
        steps: diffusion steps.
        fewer_steps: diffusion steps of the cheaper ways.
        guided: with classifier-free guidance, two branches.
        repeats: turns.

    Raises:
        ValueError: a number is out of range.
    """
    if min(token_dim, cond_dim, width, depth, batch_size, repeats) < 1:
        raise ValueError("bench head: expected sizes and numbers above 0")
    device = best_device()
    torch.manual_seed(0)
    engine = DiffusionHead(token_dim, cond_dim, width, depth).to(device)
    z = torch.randn(batch_size, cond_dim, device=device)
    z_uncond = -z if guided else None

    def way(head: Head, sampling: DiffusionSampling) -> Callable[..., object]:
        head.check(sampling)
        noise = torch.randn(batch_size, head.num_draws(sampling), token_dim, device=device)
        return lambda *_: head.sample(z, noise, sampling, z_uncond=z_uncond, guidance_scale=3.0)

    ways = {"plain": way(plain_head(engine), DiffusionSampling(num_steps=steps))}
    ways |= {
        f"{solver}_{number}": way(engine, DiffusionSampling(num_steps=number, solver=solver))
        for solver in DiffusionSampling.solvers
        for number in (steps, fewer_steps)
    }
    if guided:
        ways["half_guided"] = way(engine, DiffusionSampling(num_steps=steps, guided_steps=(0.0, 0.5)))
    taken = alternate(ways, device, repeats)
    print_line(
        "head",
        **machine(device),
        sizes={"token_dim": token_dim, "cond_dim": cond_dim, "width": width, "depth": depth},
        parameters=sum(p.numel() for p in engine.parameters()),
        batch_size=batch_size,
        guided=guided,
        repeats=repeats,
        median_seconds=medians(taken),
        speed_up={name: median_ratio(taken["plain"], seconds) for name, seconds in taken.items()},
        flops={name: count_flops(work) for name, work in ways.items()},
        bytes={name: count_bytes(work) for name, work in ways.items()},
    )

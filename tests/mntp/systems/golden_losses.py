"""Losses of twenty float64 steps: every row of Table 3, and every system with every head, as when last looked at.

`python -m tests.mntp.systems.golden_losses` writes them anew; a commit that changes them says why.
"""

import json
from pathlib import Path

import torch

from mntp.heads import HEADS
from mntp.seeding import make_generator
from mntp.systems.optimisation import parameter_groups
from tests.systems_support import ROWS, tiny_batch, tiny_system

FILE = Path(__file__).parents[2] / "golden" / "losses.json"
STEPS = 20
SYSTEM_ROWS = ("A", "G", "K")  # one of each system
CASES = [f"{row} {head}" for head in HEADS for row in (ROWS if head == "DiffusionHead" else SYSTEM_ROWS)]


def losses(case: str) -> list[float]:
    """Training losses of a tiny system, everything drawn in float64: float32 draws differ between CPUs."""
    row, head = case.split()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        system, batch = tiny_system(row, head=head), tiny_batch(8)
        optimizer = torch.optim.AdamW(parameter_groups(system, 0.02), lr=1e-3, betas=(0.9, 0.95))
        values = []
        for step in range(STEPS):
            ratio = system.draw_ratio(make_generator("ratio", step))
            loss = system.loss(batch, ratio, make_generator("golden", step))
            assert loss.dtype == torch.float64
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
    finally:
        torch.set_default_dtype(before)
    return values


if __name__ == "__main__":
    FILE.write_text(json.dumps({case: losses(case) for case in CASES}, indent=1) + "\n")

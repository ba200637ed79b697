"""Losses of twenty float64 steps of every row of Table 3, as they were when last looked at.

`python -m tests.mntp.golden_losses` writes them anew; a commit that changes them says why.
"""

import json
from pathlib import Path

import torch

from mntp.seeding import make_generator
from mntp.systems.optimisation import parameter_groups
from tests.systems_support import ROWS, tiny_batch, tiny_system

FILE = Path(__file__).parents[1] / "golden" / "losses.json"
STEPS = 20


def losses(row: str) -> list[float]:
    """Training losses of a tiny system of this row with its diffusion head."""
    system, batch = tiny_system(row).double(), tiny_batch(8)
    batch.tokens = batch.tokens.double()
    for stream in batch.text.values():
        stream.states = stream.states.double()
    optimizer = torch.optim.AdamW(parameter_groups(system, 0.02), lr=1e-3, betas=(0.9, 0.95))
    values = []
    for step in range(STEPS):
        ratio = system.draw_ratio(make_generator("ratio", step))
        loss = system.loss(batch, ratio, make_generator("golden", step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


if __name__ == "__main__":
    FILE.write_text(json.dumps({row: losses(row) for row in ROWS}, indent=1) + "\n")

"""Key layouts of the public checkpoints, dumped from the original code (tests/golden/key_layouts.json)."""

import json
import re
from pathlib import Path

import torch
from torch import Tensor

LAYOUTS = json.loads((Path(__file__).parents[2] / "golden" / "key_layouts.json").read_text())
INTEGERS = ("num_batches_tracked", "relative_position_index")


def layout(name: str) -> dict[str, list[int]]:
    """Shapes by key; `{0,1}` in a folded key stands for one key each."""
    shapes = {}
    for key, shape in LAYOUTS[name].items():
        numbers = re.search(r"\{([\d,]+)\}", key)
        for number in numbers[1].split(",") if numbers else [""]:
            shapes[re.sub(r"\{[\d,]+\}", number, key)] = shape
    return shapes


def tensors(name: str) -> dict[str, Tensor]:
    """Tensors without values (on the device `meta`): a file of them has a few kilobytes."""
    return {
        key: torch.empty(shape, dtype=torch.int64 if key.endswith(INTEGERS) else torch.float32, device="meta")
        for key, shape in layout(name).items()
    }


def randomise(network: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter and every statistic of a normalisation a value that shows when it is not used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.3
                tensor.normal_(1.0 if tensor.dim() == 1 and "weight" in name else 0.0, scale, generator=generator)

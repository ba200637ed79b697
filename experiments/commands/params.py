"""`mntp params`: how many parameters each part of a config's model has, counted without building it in memory."""

import json as json_format
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from experiments.config.resolve import build_model, load_config, resolve

# Parts as papers count them, by the name that follows `backbone.`.
BACKBONE_PARTS = {
    "encoder_blocks": "blocks",
    "decoder_blocks": "blocks",
    "input_norm": "norms and bridge",
    "encoder_norm": "norms and bridge",
    "decoder_embed": "norms and bridge",
    "decoder_norm": "norms and bridge",
    "position_embed": "positions",
    "decoder_position_embed": "positions",
    "output_position_embed": "positions",
    "token_proj": "token projection",
    "bos": "BOS",
    "mask_token": "mask token",
}
OTHER_PARTS = {"target_position_embed": "target positions"}


def params(config: list[Path], json: bool = False) -> None:
    """Print the number of parameters of each part of a model.

    Args:
        config: config files; each is laid over those before it, as `lightning fit` does.
        json: print a JSON object instead of a table.
    """
    layers = [load_config(path) for path in config]
    if not isinstance(layers[0].get("model"), dict) or "class_path" not in layers[0]["model"]:
        raise ValueError(f"{config[0]}: names no model.class_path; give the config that it is laid over before it")
    resolved = resolve(*layers)
    with torch.device("meta"):
        model = build_model(resolved)
    counts = count_parts(model)
    if json:
        print(json_format.dumps(counts, indent=2))  # noqa: T201
        return
    table = Table(title=f"{type(model).__name__} ({', '.join(map(str, config))})")
    for title in ("part", "parameters", "share"):
        table.add_column(title, justify="left" if title == "part" else "right")
    for part, count in counts.items():
        table.add_section() if part == "total" else None
        table.add_row(part, f"{count:,}", f"{count / counts['total']:.2%}")
    Console().print(table)


def count_parts(model: nn.Module) -> dict[str, int]:
    """Parameters of each part of a system, the largest part first, then `total` and `trainable`.

    Parts of the backbone that are not known by name stand under their own.
    """
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        first, *rest = name.split(".")
        part = BACKBONE_PARTS.get(rest[0], rest[0]) if first == "backbone" else OTHER_PARTS.get(first, first)
        counts[part] += parameter.numel()
    return {
        **dict(counts.most_common()),
        "total": sum(counts.values()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }

"""Golden vectors of MAR's public code, and its pseudo-random weights under our names."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"
CONFIG: dict[str, Any] = json.loads((FOLDER / "mar_small.json").read_text())
ARRAYS = {name: torch.from_numpy(array) for name, array in np.load(FOLDER / "mar_small.npz").items()}

RENAMED = {
    "z_proj.": "token_proj.",
    "z_proj_ln.": "input_norm.",
    "encoder_pos_embed_learned": "position_embed",
    "decoder_pos_embed_learned": "decoder_position_embed",
    "diffusion_pos_embed_learned": "output_position_embed",
}
HEAD_RENAMED = {
    "time_embed.mlp.0.": "time_embed.fc1.",
    "time_embed.mlp.2.": "time_embed.fc2.",
    "cond_embed.": "cond_proj.",
    "res_blocks.": "blocks.",
    ".in_ln.": ".norm.",
    ".mlp.0.": ".fc1.",
    ".mlp.2.": ".fc2.",
    "final_layer.linear.": "output_proj.",
    "final_layer.adaLN_modulation.1.": "final_modulation.",
    ".adaLN_modulation.1.": ".modulation.",
}
HEAD_PREFIX = "diffloss.net."


def weight(key: str) -> Tensor:
    """The pseudo-random weight of MAR's `key` (rule in tests/golden/README.md)."""
    shape = CONFIG["keys"][key]
    z = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(shape)
    if key.endswith(".bias"):
        z = 0.02 * z
    elif key.endswith(".weight") and len(shape) == 1:
        z = 1 + 0.1 * z
    elif key.endswith(".weight") and len(shape) == 2:
        z = z / np.sqrt(shape[1])
    else:
        z = 0.1 * z
    return torch.from_numpy(z.astype(np.float32))


def _rename(key: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        key = key.replace(old, new)
    return key


def backbone_state() -> dict[str, Tensor]:
    """State dict of our MaskedEncoderDecoder."""
    skipped = ("fake_latent", "class_emb.weight")
    keys = [key for key in CONFIG["keys"] if not key.startswith(HEAD_PREFIX) and key not in skipped]
    state = {_rename(key, RENAMED): weight(key) for key in keys}
    return {
        name: tensor.flatten(0, -2).squeeze(0) if "embed" in name and tensor.ndim == 3 else tensor.squeeze()
        for name, tensor in state.items()
    }


def head_state() -> dict[str, Tensor]:
    """State dict of our denoiser network."""
    keys = [key for key in CONFIG["keys"] if key.startswith(HEAD_PREFIX)]
    return {_rename(key.removeprefix(HEAD_PREFIX), HEAD_RENAMED): weight(key) for key in keys}

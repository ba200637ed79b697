"""Golden vectors of MAR's public code, and its pseudo-random weights under our names."""

import argparse
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[2] / "golden"
CONFIG: dict[str, Any] = json.loads((FOLDER / "mar_small.json").read_text())
ARRAYS = {name: torch.from_numpy(array) for name, array in np.load(FOLDER / "mar_small.npz").items()}

# MAR's names under ours, as far as ImageMAR leaves them in the file.
RENAMED = {
    "z_proj.": "token_proj.",
    "z_proj_ln.": "input_norm.",
    "encoder_pos_embed_learned": "position_embed",
    "decoder_pos_embed_learned": "decoder_position_embed",
    "diffusion_pos_embed_learned": "output_position_embed",
    "mask_token": "mask_token",
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


def embedding_state() -> dict[str, Tensor]:
    """What ImageMAR leaves of MAR's backbone, as state of our MaskedEncoderDecoder."""
    keys = [key for key in CONFIG["keys"] if key.startswith(tuple(RENAMED))]
    return {_rename(key, RENAMED): weight(key).squeeze() for key in keys}


def head_state() -> dict[str, Tensor]:
    """State dict of our denoiser network."""
    keys = [key for key in CONFIG["keys"] if key.startswith(HEAD_PREFIX)]
    return {_rename(key.removeprefix(HEAD_PREFIX), HEAD_RENAMED): weight(key) for key in keys}


def write_checkpoint(path: Path, weights: Mapping[str, Tensor], average: bool = True, **more: Any) -> None:
    """Write a file as MAR's training does; `model` holds twice the average, to tell them apart."""
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    content = {
        "model": {name: 2 * tensor for name, tensor in weights.items()},
        "model_ema": {name: nn.Parameter(tensor) for name, tensor in weights.items()} if average else None,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "epoch": 800,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
        "args": argparse.Namespace(model="mar_base", img_size=256, blr=1e-4, output_dir="./output_dir", resume=None),
    }
    torch.save({**content, **more}, path)


def public_layout(
    dim: int,
    depth: int,
    num_tokens: int = 256,
    buffer: int = 64,
    token_dim: int = 16,
    num_classes: int = 1000,
    head_width: int = 1024,
    head_depth: int = 3,
) -> dict[str, list[int]]:
    """Keys and shapes of MAR's public models: `mar_base` is (768, 12), `mar_large` (1024, 16); depth of one half."""

    def linear(name: str, out_features: int, in_features: int) -> dict[str, list[int]]:
        return {f"{name}.weight": [out_features, in_features], f"{name}.bias": [out_features]}

    def norm(name: str, width: int) -> dict[str, list[int]]:
        return {f"{name}.weight": [width], f"{name}.bias": [width]}

    def block(name: str) -> dict[str, list[int]]:
        return {
            **norm(f"{name}.norm1", dim),
            **linear(f"{name}.attn.qkv", 3 * dim, dim),
            **linear(f"{name}.attn.proj", dim, dim),
            **norm(f"{name}.norm2", dim),
            **linear(f"{name}.mlp.fc1", 4 * dim, dim),
            **linear(f"{name}.mlp.fc2", dim, 4 * dim),
        }

    layout = {
        "fake_latent": [1, dim],
        "encoder_pos_embed_learned": [1, num_tokens + buffer, dim],
        "mask_token": [1, 1, dim],
        "decoder_pos_embed_learned": [1, num_tokens + buffer, dim],
        "diffusion_pos_embed_learned": [1, num_tokens, dim],
        "class_emb.weight": [num_classes, dim],
        **linear("z_proj", dim, token_dim),
        **norm("z_proj_ln", dim),
    }
    for half in ("encoder", "decoder"):
        for index in range(depth):
            layout |= block(f"{half}_blocks.{index}")
    layout |= norm("encoder_norm", dim) | linear("decoder_embed", dim, dim) | norm("decoder_norm", dim)
    net = "diffloss.net"
    layout |= linear(f"{net}.time_embed.mlp.0", head_width, 256)
    layout |= linear(f"{net}.time_embed.mlp.2", head_width, head_width)
    layout |= linear(f"{net}.cond_embed", head_width, dim) | linear(f"{net}.input_proj", head_width, token_dim)
    for index in range(head_depth):
        res = f"{net}.res_blocks.{index}"
        layout |= norm(f"{res}.in_ln", head_width) | linear(f"{res}.mlp.0", head_width, head_width)
        layout |= linear(f"{res}.mlp.2", head_width, head_width)
        layout |= linear(f"{res}.adaLN_modulation.1", 3 * head_width, head_width)
    layout |= linear(f"{net}.final_layer.linear", 2 * token_dim, head_width)
    return layout | linear(f"{net}.final_layer.adaLN_modulation.1", 2 * head_width, head_width)

"""LAION's CLAP: its checkpoints as `transformers` models, and its embeddings of captions.

LAION publishes `.pt` files of its own training code; the conversions on the hub are other checkpoints. The two
networks are the same under other names, which `hf_names` translates.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from mntp.pretrained.checkpoints import NUMPY_VALUES, check_layout, read_checkpoint, state_dict_of

if TYPE_CHECKING:  # it takes a second to import, which is spent only when a model is loaded
    from transformers import ClapConfig, ClapModel, PreTrainedTokenizerBase

TEXT_TOKENIZER = "roberta-base"
"""LAION's files hold no text tokenizer; CLAP was trained with this one."""
MAX_TEXT_TOKENS = 77
"""CLAP was trained on captions cut to this length."""
HTSAT_DEPTHS = {96: [2, 2, 6, 2], 128: [2, 2, 12, 2]}
"""Blocks of the four stages of HTSAT-tiny and HTSAT-base, by the width of their patches."""
_CAPTIONS_AT_ONCE = 64

_AUDIO = "audio_branch."
# Read by no embedding: LAION's classifier heads, its front end, and constants that are computed anew.
_LEFT = re.compile(
    r"(text|audio)_transform\.|audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|.*\.attn_mask$|text_branch\.embeddings\.position_ids$"
)
_RENAMED = (  # patterns in names, LAION's -> transformers'
    (r"^audio_branch\.bn0\.", "audio_branch.batch_norm."),
    (r"(\.blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(\.blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"(\.blocks\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"(\.blocks\.\d+)\.attn\.", r"\1.attention.self."),
    (r"(\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"^text_branch\.", "text_model."),
    (r"^((?:text|audio)_projection)\.0\.", r"\1.linear1."),
    (r"^((?:text|audio)_projection)\.2\.", r"\1.linear2."),
)


def load_laion_clap(path: Path) -> "ClapModel":
    """Load a checkpoint of LAION's training, HTSAT-base or HTSAT-tiny without fusion, frozen and on the CPU.

    Args:
        path: such as `music_speech_audioset_epoch_15_esc_89.98.pt`.

    Raises:
        ValueError: the file is missing, damaged, of another layout, or of a model with fusion or of another width.
    """
    from transformers import ClapModel

    content = read_checkpoint(path, safe=NUMPY_VALUES, legacy=True)
    theirs = {
        name.removeprefix("module."): tensor for name, tensor in state_dict_of(content, "state_dict", path).items()
    }
    config = _config(theirs, path)
    with torch.device("meta"):  # every tensor comes from the file: drawing random ones would take seconds
        model = ClapModel(config)
    expected = model.state_dict()
    state = _constants(expected) | convert(theirs)
    check_layout(state, expected, path)
    # Copies, so that no tensor refers to the mapped file.
    model.load_state_dict(
        {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in state.items()}, assign=True
    )
    return model.eval().requires_grad_(False)


def hf_names(name: str) -> tuple[str, ...]:
    """Names in `transformers` of a tensor of LAION's: none if it is not needed, three for stacked q, k and v."""
    if _LEFT.match(name):
        return ()
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    head, stacked, kind = name.partition(".self.qkv.")
    return tuple(f"{head}.self.{part}.{kind}" for part in ("query", "key", "value")) if stacked else (name,)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename LAION's tensors (without their prefix `module.`), and cut stacked ones into equal thirds."""
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = hf_names(name)
        converted |= zip(names, tensor.chunk(len(names)) if len(names) > 1 else (tensor,), strict=False)
    return converted


@torch.no_grad()
def embed_captions(model: "ClapModel", tokenizer: "PreTrainedTokenizerBase", captions: Sequence[str]) -> Tensor:
    """Embed captions, each padded or cut to 77 tokens, as [n, 512] float32 of unit length on the model's device."""
    parts = []
    for first in range(0, len(captions), _CAPTIONS_AT_ONCE):
        chunk = list(captions[first : first + _CAPTIONS_AT_ONCE])
        tokens = tokenizer(
            chunk, padding="max_length", truncation=True, max_length=MAX_TEXT_TOKENS, return_tensors="pt"
        )
        ids, mask = (tokens[key].to(model.device) for key in ("input_ids", "attention_mask"))
        pooled = model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        parts.append(F.normalize(model.text_projection(pooled), dim=-1))
    return torch.cat(parts)


def _config(state: Mapping[str, Tensor], path: Path) -> "ClapConfig":
    """The configuration of the HTSAT whose width a state dict of LAION's shows."""
    from transformers import ClapConfig

    patches = state.get(f"{_AUDIO}patch_embed.proj.weight")
    if patches is None or patches.ndim != 4:
        raise ValueError(f"{path}: has no {_AUDIO}patch_embed.proj.weight: not a checkpoint of LAION's CLAP with HTSAT")
    if any(name.startswith(f"{_AUDIO}patch_embed.mel_conv2d.") for name in state):
        raise ValueError(f"{path}: a CLAP with fusion, which hears long clips otherwise: take one without")
    width = len(patches)
    if width not in HTSAT_DEPTHS:
        raise ValueError(f"{path}: HTSAT has width {' or '.join(map(str, HTSAT_DEPTHS))}, the file's has {width}")
    return ClapConfig(
        audio_config={
            "patch_embeds_hidden_size": width,
            "hidden_size": 8 * width,
            "depths": HTSAT_DEPTHS[width],
        },
        # RoBERTa's, which LAION's text branch is; the default of ClapConfig is BERT's.
        text_config={"layer_norm_eps": 1e-5},
    )


def _constants(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Buffers of `transformers` that LAION's files don't have."""
    shape = expected["text_model.embeddings.position_ids"].shape
    return {
        "text_model.embeddings.position_ids": torch.arange(shape[-1]).expand(shape),
        "text_model.embeddings.token_type_ids": torch.zeros(shape, dtype=torch.int64),
    }

"""Starting from MAR's public image checkpoints, `checkpoint-last.pth` (arXiv 2406.11838; github LTH14/mar)."""

from pathlib import Path
from typing import Literal

import lightning as L
from torch import Tensor

from mntp.backbones import TransformerBackbone
from mntp.initial_weights.base import InitialWeights, Selection

BRIDGE = ("encoder_norm", "decoder_embed")
TAKEN = ("encoder_blocks", *BRIDGE, "decoder_blocks", "decoder_norm")
NUM_HEADS = {768: 12, 1024: 16, 1280: 16}  # of the public models, by width
LEFT = {  # MAR's other parts, and why they stay behind
    "diffloss": "the head learns the distribution of other tokens",
    "z_proj": "tokens of images have another width",
    "z_proj_ln": "follows the token projection, which starts anew",
    "encoder_pos_embed_learned": "positions of a 2-D grid",
    "decoder_pos_embed_learned": "positions of a 2-D grid",
    "diffusion_pos_embed_learned": "positions of a 2-D grid",
    "mask_token": "stands among embeddings that start anew",
    "class_emb": "captions take the place of classes",
    "fake_latent": "captions take the place of classes",
}


class ImageMAR(InitialWeights):
    """MAR trained on ImageNet: its blocks and the norms and the bridge between them (paper section 4.1).

    Head, token projection, positions and everything in front of the blocks start anew. MAR's encoder and decoder
    blocks have the same names here, so a causal model runs the encoder's and then the decoder's, in their order.

    Args:
        path: `checkpoint-last.pth` as MAR's training writes it, of `mar_base` (dim 768, depth 24, 12 heads) or
            `mar_large` (1024, 32, 16).
        weights: the averaged weights, or those of the last step.
    """

    def __init__(self, path: Path, weights: Literal["model_ema", "model"] = "model_ema") -> None:
        super().__init__(path)
        self.weights = weights

    def select(self, system: L.LightningModule) -> Selection:
        """Choose the blocks, `encoder_norm`, `decoder_embed` and `decoder_norm`; the two halves must match in depth."""
        own = {name for name in system.state_dict() if name.startswith(tuple(f"backbone.{part}." for part in TAKEN))}
        taken, left = {}, {}
        for name, tensor in self._read().items():
            part = name.partition(".")[0]
            if part not in TAKEN:
                left[name] = LEFT.get(part, "no part of MAR's public code")
            elif part in BRIDGE and f"backbone.{name}" not in own:
                left[name] = "the model has no bridge between its halves"
            else:
                taken[f"backbone.{name}"] = tensor
        for name in sorted(own ^ taken.keys()):
            has, lacks = ("the file", "the model") if name in taken else ("the model", "the file")
            raise ValueError(
                f"{self.path}: {has} has {name.removeprefix('backbone.')}, {lacks} has not: give the model the file's "
                "depth, take a file of the model's size, or set init: null"
            )
        self._check_heads(system)
        return Selection(f"ImageMAR {self.path} ({self.weights})", taken, left)

    def _check_heads(self, system: L.LightningModule) -> None:
        """The number of attention heads shows in no shape."""
        backbone = system.get_submodule("backbone")
        assert isinstance(backbone, TransformerBackbone)
        expected = NUM_HEADS.get(backbone.dim, backbone.num_heads)
        if backbone.num_heads != expected:
            raise ValueError(
                f"{self.path}: MAR of width {backbone.dim} has {expected} attention heads, the model has "
                f"{backbone.num_heads}: set model.init_args.backbone.init_args.num_heads: {expected}, or init: null"
            )

    def _read(self) -> dict[str, Tensor]:
        checkpoint = self.checkpoint()
        layout = f"{self.path}: not a checkpoint of MAR's training"
        if self.weights not in checkpoint:
            raise ValueError(f"{layout}: expected the keys 'model' and 'model_ema', got {sorted(map(str, checkpoint))}")
        state = checkpoint[self.weights]
        if state is None:
            raise ValueError(
                f"{self.path}: '{self.weights}' is None, this training kept no average: set weights: model"
            )
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError(f"{layout}: '{self.weights}' is no mapping of names to tensors")
        if not any(name.startswith("encoder_blocks.") for name in state):
            raise ValueError(f"{layout}: '{self.weights}' has no encoder_blocks, its first names are {list(state)[:3]}")
        return state

"""MAR's masked encoder-decoder, the backbone of AudioMAR (arXiv 2406.11838, section 3.3)."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mntp.backbones.base import BackboneFactory, TransformerBackbone, gather_rows
from mntp.layers import free_embedding
from mntp.masking import kept_positions


class MaskedEncoderDecoder(TransformerBackbone):
    """The encoder sees prompt and visible tokens; the decoder also a mask token for each hidden position.

    Attention is bidirectional. The learned `output_position_embed` is added to the contexts before the head, as MAR
    adds its `diffusion_pos_embed`.

    Args: those of TransformerBackbone.
    """

    def __init__(self, *args: Any, **sizes: Any) -> None:
        super().__init__(*args, **sizes)
        num_positions = self.prompt_length + self.num_tokens
        self.mask_token = free_embedding(self.dim)
        self.decoder_position_embed = free_embedding(num_positions, self.dim)
        self.output_position_embed = free_embedding(self.num_tokens, self.dim)

    def forward(self, prompt: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Contexts of all positions.

        Args:
            prompt: [B, P, C].
            tokens: [B, N, D]; values at hidden positions are never looked at.
            mask: [B, N] bool, True where hidden; the same number hidden in every clip.

        Returns:
            [B, N, C].
        """
        return self.decode(self.encode(prompt, tokens, mask), mask)

    def encode(self, prompt: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Run the encoder over prompt and visible tokens -> [B, P + visible, C]."""
        visible = kept_positions(mask)
        x = self._embed_tokens(gather_rows(tokens, visible), visible)
        x = self.input_norm(torch.cat([self._embed_prompt(prompt), x], dim=1))
        return self.encoder_norm(self._run_blocks(self.encoder_blocks, x, causal=False))

    def decode(self, encoded: Tensor, mask: Tensor) -> Tensor:
        """Put mask tokens at the hidden positions, run the decoder, drop the prompt -> [B, N, C]."""
        batch, num_tokens = mask.shape
        x = self.decoder_embed(encoded)
        rows = kept_positions(mask).unsqueeze(-1).expand(-1, -1, self.dim)
        content = self.mask_token.to(x.dtype).expand(batch, num_tokens, -1)
        content = content.scatter(1, rows, x[:, self.prompt_length :])
        x = torch.cat([x[:, : self.prompt_length], content], dim=1) + self.decoder_position_embed
        x = self._run_blocks(self.decoder_blocks, x, causal=False)
        return self.decoder_norm(x)[:, self.prompt_length :] + self.output_position_embed


@runtime_checkable
class MaskedBackboneFactory(BackboneFactory, Protocol):
    """A factory of this family only."""

    def __call__(self, *, token_dim: int, num_tokens: int, prompt_length: int) -> MaskedEncoderDecoder:
        """Build it."""
        ...

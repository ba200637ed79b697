"""AudioMAR: masked autoregression with bidirectional attention, the paper's topline (Table 3, row K)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mntp.backbones import MaskedBackboneFactory, MaskedEncoderDecoder
from mntp.backbones.base import gather_rows
from mntp.masking import MaskRatio, kept_positions, num_hidden_in_mar, random_mask
from mntp.samplers import ClipNoise, DecodingState, MaskedDecoding, TokenDrawer, decode_masked
from mntp.seeding import make_generator
from mntp.systems.base import AudioSystem
from mntp.systems.predictions import Predictions

HELD_OUT_RATIO = 0.75  # share of tokens masked when the held-out loss is taken; ours


class AudioMAR(AudioSystem):
    """Masked tokens are predicted from the visible ones, in any direction (arXiv 2406.11838).

    Args:
        backbone: a masked encoder-decoder.
        mask_ratio: distribution of the share of masked tokens.
        decoding: order and number of decoding steps, and the head's sampling.
        shared: the other arguments of AudioSystem.
    """

    held_out_task = "masked"
    backbone: MaskedEncoderDecoder

    def __init__(
        self,
        backbone: MaskedBackboneFactory,
        mask_ratio: MaskRatio,
        decoding: MaskedDecoding = MaskedDecoding(),
        **shared: Any,
    ) -> None:
        super().__init__(backbone=backbone, decoding=decoding, **shared)
        self.mask_ratio = mask_ratio

    def draw_ratio(self, generator: torch.Generator) -> float:
        """From the distribution."""
        return self.mask_ratio.sample(generator)

    def pairs(self, tokens: Tensor, prompt: Tensor, ratio: float, generator: torch.Generator) -> Predictions:
        """Score the masked tokens."""
        num_hidden = num_hidden_in_mar(ratio, self.num_tokens)
        return self._run(tokens, prompt, random_mask(len(tokens), self.num_tokens, num_hidden, generator))

    def held_out_pairs(self, tokens: Tensor, prompt: Tensor, index: Tensor) -> Predictions:
        """Score three quarters of the tokens, chosen by the clip's row."""
        num_hidden = num_hidden_in_mar(HELD_OUT_RATIO, self.num_tokens)
        masks = [
            random_mask(1, self.num_tokens, num_hidden, make_generator("held-out mask", row)) for row in index.tolist()
        ]
        return self._run(tokens, prompt, torch.cat(masks).to(tokens.device))

    def decode(
        self, prompt: Tensor, fake_prompt: Tensor, noise: ClipNoise, known: Tensor, num_tokens: int
    ) -> Iterator[DecodingState]:
        """Several positions at a time, in the order that `decoding` names; always all N, whatever is wanted."""
        assert isinstance(self.decoding, MaskedDecoding)
        drawer = TokenDrawer(self.head, self.decoding, noise, self.num_tokens)
        return decode_masked(self.backbone, drawer, drawer.branches(prompt, fake_prompt), known, self.decoding)

    def _run(self, tokens: Tensor, prompt: Tensor, mask: Tensor) -> Predictions:
        hidden = kept_positions(~mask)
        return Predictions(gather_rows(self.backbone(prompt, tokens, mask), hidden), hidden)

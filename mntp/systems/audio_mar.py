"""AudioMAR: masked autoregression with bidirectional attention, the paper's topline (Table 3, row K)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mntp.backbones import MaskedBackboneFactory, MaskedEncoderDecoder
from mntp.backbones.base import gather_rows
from mntp.batch import TextStream
from mntp.heads import HeadFactory
from mntp.masking import MaskRatio, kept_positions, num_hidden_in_mar, random_mask
from mntp.samplers import ClipNoise, DecodingState, MaskedDecoding, decode_masked
from mntp.seeding import make_generator
from mntp.systems.base import AudioSystem, Predictions
from mntp.systems.optimisation import Optimisation

HELD_OUT_RATIO = 0.75  # share of tokens hidden when the held-out loss is taken; ours


class AudioMAR(AudioSystem):
    """Hidden tokens are predicted from the visible ones, in any direction (arXiv 2406.11838).

    Args:
        token_dim, num_tokens, streams, head, optimisation, prompt_drop, seed, ratio_per_rank: see
            AudioSystem.
        backbone: a masked encoder-decoder.
        mask_ratio: distribution of the share of masked tokens.
        decoding: order and number of decoding steps, and the head's sampling.
    """

    held_out_task = "masked"
    backbone: MaskedEncoderDecoder
    decoding: MaskedDecoding

    def __init__(
        self,
        token_dim: int,
        num_tokens: int,
        streams: dict[str, TextStream],
        backbone: MaskedBackboneFactory,
        head: HeadFactory,
        mask_ratio: MaskRatio,
        decoding: MaskedDecoding = MaskedDecoding(),
        optimisation: Optimisation = Optimisation(),
        prompt_drop: float = 0.1,
        seed: int = 0,
        ratio_per_rank: bool = False,
    ) -> None:
        super().__init__(
            token_dim, num_tokens, streams, backbone, head, decoding, optimisation, prompt_drop, seed, ratio_per_rank
        )
        self.mask_ratio = mask_ratio

    def draw_ratio(self, generator: torch.Generator) -> float:
        """From the law."""
        return self.mask_ratio.sample(generator)

    def pairs(self, tokens: Tensor, prompt: Tensor, ratio: float, generator: torch.Generator) -> Predictions:
        """Score the hidden tokens."""
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
        return decode_masked(self.backbone, self.head, prompt, fake_prompt, noise, self.decoding, known)

    def _run(self, tokens: Tensor, prompt: Tensor, mask: Tensor) -> Predictions:
        hidden = kept_positions(~mask)
        return Predictions(gather_rows(self.backbone(prompt, tokens, mask), hidden), hidden)

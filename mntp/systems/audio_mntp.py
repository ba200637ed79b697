"""AudioMNTP: masked next-token prediction, the paper's proposal (section 3.2)."""

from typing import Any

import torch
from torch import Tensor, nn

from mntp.backbones.base import gather_rows, look_up_rows
from mntp.masking import MaskRatio, in_random_order, kept_positions, num_hidden_when_dropping, random_mask
from mntp.samplers import ClipNoise, Decoding, ParallelDecoding
from mntp.samplers.orders import put_known_first
from mntp.systems.audio_ntp import AudioNTP, CausalTask


class AudioMNTP(AudioNTP):
    """Tokens are dropped, and each kept input predicts the next *kept* token (Table 3, rows G-J).

    Args:
        mask_ratio: distribution of the share of dropped tokens.
        target_position_embedding: tell each input which position it is to predict (row I leaves it out).
        shuffled: put in the kept tokens in random order, so that decoding may leave gaps and fill them (ours).
        decoding: how tokens are drawn, one or several at a time.
        shared: the other arguments of AudioNTP, except for `masking_mode`.

    Raises:
        ValueError: arguments that contradict each other.
    """

    def __init__(
        self,
        mask_ratio: MaskRatio,
        target_position_embedding: bool = True,
        shuffled: bool = False,
        decoding: ParallelDecoding = ParallelDecoding(),
        **shared: Any,
    ) -> None:
        super().__init__(masking_mode="drop", mask_ratio=mask_ratio, decoding=decoding, **shared)
        if shuffled and not target_position_embedding:
            raise ValueError("shuffled: true needs target_position_embedding: true, or no input knows what to predict")
        if shuffled and self.short_context is not None:
            raise ValueError("shuffled: true and short_context exclude each other: there are no last tokens to look at")
        self.shuffled = shuffled
        self.target_position_embed = None
        if target_position_embedding:  # starts at zero, where AudioMNTP with nothing dropped is AudioNTP
            self.target_position_embed = nn.Parameter(torch.zeros(self.num_tokens, self.backbone.dim))
        self._check_order(decoding)

    def task(self, tokens: Tensor, ratio: float, generator: torch.Generator) -> CausalTask:
        """BOS predicts the first kept token, each kept token the next one; the last is no input."""
        num_hidden = num_hidden_when_dropping(ratio, self.num_tokens)
        kept = kept_positions(random_mask(len(tokens), self.num_tokens, num_hidden, generator), num_hidden)
        if self.shuffled:
            kept = in_random_order(kept, generator)
        return CausalTask(gather_rows(tokens, kept[:, :-1]), kept[:, :-1], kept)

    def target_embedding(self, targets: Tensor) -> Tensor | None:
        """The learned embedding of each target position."""
        return None if self.target_position_embed is None else look_up_rows(self.target_position_embed, targets)

    def calls(self, noise: ClipNoise, num_known: int, num_tokens: int) -> tuple[list[int], Tensor | None]:
        """As `decoding` says; in random order always all N tokens.

        Raises:
            ValueError: see `check_decoding`.
        """
        decoding = self.decoding
        assert isinstance(decoding, ParallelDecoding)
        self._check_order(decoding)
        if not decoding.random_order:
            return decoding.counts(num_known, num_tokens), None
        orders = put_known_first(noise.orders(self.num_tokens), num_known)
        return decoding.counts(num_known, self.num_tokens), orders

    def check_decoding(self, decoding: Decoding) -> Decoding:
        """As in AudioSystem. Several tokens a call need target positions, a random order a model trained in one."""
        assert isinstance(decoding, ParallelDecoding)
        self._check_order(decoding)
        return super().check_decoding(decoding)

    def _check_order(self, decoding: ParallelDecoding) -> None:
        if decoding.tokens_per_call > 1 and self.target_position_embed is None:
            raise ValueError(
                f"decoding.tokens_per_call: {decoding.tokens_per_call} needs target_position_embedding: true; without "
                "it every input predicts one position only"
            )
        if decoding.random_order and not self.shuffled:
            raise ValueError(
                "decoding.random_order: true fills gaps between tokens, which the model has not seen in "
                "training: train with shuffled: true, or decode with random_order: false"
            )

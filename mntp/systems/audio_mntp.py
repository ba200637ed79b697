"""AudioMNTP: masked next-token prediction, the paper's proposal (section 3.2)."""

from typing import Any

import torch
from torch import Tensor, nn

from mntp.backbones.base import gather_rows, rows_of
from mntp.masking import MaskRatio, in_random_order, kept_positions, num_hidden_when_dropping, random_mask
from mntp.samplers import ClipNoise, Decoding, ParallelDecoding
from mntp.samplers.orders import behind_known
from mntp.systems.audio_ntp import AudioNTP, CausalTask


class AudioMNTP(AudioNTP):
    """Tokens are dropped, and each kept input predicts the next *kept* token (Table 3, rows G-J).

    Args:
        mask_ratio: distribution of the share of dropped tokens.
        target_position_embedding: tell each input the place that it is to predict (row I leaves it out).
        shuffled: feed the kept tokens in a random order, so that decoding may leave gaps and fill them (ours).
        decoding: how tokens are drawn, one or several at a time.
        shared: the arguments of AudioNTP but `masking_mode`.
    """

    decoding: ParallelDecoding

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
        """The learned embedding of each target's place."""
        return None if self.target_position_embed is None else rows_of(self.target_position_embed, targets)

    def calls(self, noise: ClipNoise, num_known: int, num_tokens: int) -> tuple[list[int], Tensor | None]:
        """As `decoding` says; in a random order always all N tokens.

        Raises:
            ValueError: see `check`.
        """
        self._check_order(self.decoding)
        if not self.decoding.random_order:
            return self.decoding.counts(num_known, num_tokens), None
        orders = behind_known(noise.orders(self.num_tokens), num_known)
        return self.decoding.counts(num_known, self.num_tokens), orders

    def check(self, decoding: Decoding) -> None:
        """As in AudioSystem; several tokens a call need target positions, a random order a model trained in one."""
        super().check(decoding)
        assert isinstance(decoding, ParallelDecoding)
        self._check_order(decoding)

    def _check_order(self, decoding: ParallelDecoding) -> None:
        if decoding.tokens_per_call > 1 and self.target_position_embed is None:
            raise ValueError(
                f"decoding.tokens_per_call: {decoding.tokens_per_call} needs target_position_embedding: true; without "
                "it every input can only be asked for one token"
            )
        if decoding.random_order and not self.shuffled:
            raise ValueError(
                "decoding.random_order: true fills gaps that were left behind, which the model has not seen in "
                "training: train with shuffled: true, or decode with random_order: false"
            )

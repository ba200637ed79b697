"""AudioMNTP: masked next-token prediction, the paper's proposal (section 3.2)."""

from typing import Any

import torch
from torch import Tensor, nn

from mntp.backbones.base import gather_rows, rows_of
from mntp.masking import RatioLaw, kept_positions, num_hidden_when_dropping, random_mask
from mntp.systems.audio_ntp import AudioNTP, CausalTask


class AudioMNTP(AudioNTP):
    """Tokens are dropped, and each kept input predicts the next *kept* token (Table 3, rows G-J).

    Args:
        ratio: law of the share of dropped tokens.
        target_position_embedding: tell each input the place that it is to predict (row I leaves it out).
        shared: the arguments of AudioNTP but `hide`.
    """

    def __init__(self, ratio: RatioLaw, target_position_embedding: bool = True, **shared: Any) -> None:
        super().__init__(hide="drop", ratio=ratio, **shared)
        self.target_position_embed = None
        if target_position_embedding:  # starts at zero, where AudioMNTP with nothing dropped is AudioNTP
            self.target_position_embed = nn.Parameter(torch.zeros(self.num_tokens, self.backbone.dim))

    def task(self, tokens: Tensor, ratio: float, generator: torch.Generator) -> CausalTask:
        """BOS predicts the first kept token, each kept token the next one; the last is no input."""
        num_hidden = num_hidden_when_dropping(ratio, self.num_tokens)
        kept = kept_positions(random_mask(len(tokens), self.num_tokens, num_hidden, generator))
        return CausalTask(gather_rows(tokens, kept[:, :-1]), kept[:, :-1], kept)

    def target_embedding(self, targets: Tensor) -> Tensor | None:
        """The learned embedding of each target's place."""
        return None if self.target_position_embed is None else rows_of(self.target_position_embed, targets)

"""AudioMNTP: masked next-token prediction, the paper's proposal (section 3.2)."""

import torch
from torch import Tensor, nn

from mntp.backbones import CausalBackboneFactory
from mntp.backbones.base import gather_rows
from mntp.batch import Stream
from mntp.heads import HeadFactory
from mntp.masking import RatioLaw, kept_positions, num_hidden_when_dropping, random_mask
from mntp.samplers import Decoding
from mntp.systems.audio_ntp import AudioNTP, CausalTask
from mntp.systems.optimisation import Optimisation


class AudioMNTP(AudioNTP):
    """Tokens are dropped, and each kept input predicts the next *kept* token (Table 3, rows G-J).

    Args:
        token_dim, num_tokens, streams, backbone, head, decoding, optimisation, prompt_drop, seed: see AudioNTP.
        ratio: law of the share of dropped tokens.
        target_position_embedding: tell each input the place that it is to predict (row I leaves it out).
    """

    def __init__(
        self,
        token_dim: int,
        num_tokens: int,
        streams: dict[str, Stream],
        backbone: CausalBackboneFactory,
        head: HeadFactory,
        ratio: RatioLaw,
        target_position_embedding: bool = True,
        decoding: Decoding = Decoding(),
        optimisation: Optimisation = Optimisation(),
        prompt_drop: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            token_dim,
            num_tokens,
            streams,
            backbone,
            head,
            hide="drop",
            ratio=ratio,
            decoding=decoding,
            optimisation=optimisation,
            prompt_drop=prompt_drop,
            seed=seed,
        )
        self.target_position_embed = None
        if target_position_embedding:  # starts at zero, where AudioMNTP with nothing dropped is AudioNTP
            self.target_position_embed = nn.Parameter(torch.zeros(num_tokens, self.backbone.dim))

    def task(self, tokens: Tensor, ratio: float, generator: torch.Generator) -> CausalTask:
        """BOS predicts the first kept token, each kept token the next one; the last is no input."""
        num_hidden = num_hidden_when_dropping(ratio, self.num_tokens)
        kept = kept_positions(random_mask(len(tokens), self.num_tokens, num_hidden, generator))
        return CausalTask(gather_rows(tokens, kept[:, :-1]), kept[:, :-1], kept)

    def target_embedding(self, targets: Tensor) -> Tensor | None:
        """The learned embedding of each target's place."""
        return None if self.target_position_embed is None else self.target_position_embed[targets]

"""AudioNTP: next-token prediction over continuous tokens, with or without input masking (paper section 3.1)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mntp.backbones import CausalBackboneFactory, CausalTransformer
from mntp.backbones.base import gather_rows
from mntp.batch import TextStream
from mntp.heads import HeadFactory
from mntp.masking import MaskingMode, MaskRatio, corrupt, kept_positions, num_hidden_when_dropping, random_mask
from mntp.samplers import ClipNoise, Decoding, DecodingState, decode_autoregressive
from mntp.systems.base import AudioSystem, Predictions
from mntp.systems.optimisation import Optimisation


@dataclass
class CausalTask:
    """What a causal system feeds and asks.

    Attributes:
        fed: [B, T - 1, D] tokens behind BOS.
        positions: [B, T - 1] int64, their places.
        targets: [B, T] int64, the place that each input is to predict; N where there is nothing to predict.
        scored: [B, T] bool, False where there is nothing to predict; None where every input has a target.
    """

    fed: Tensor
    positions: Tensor
    targets: Tensor
    scored: Tensor | None = None


class AudioNTP(AudioSystem):
    """Each input predicts its immediate successor (Table 3, rows A-F).

    Args:
        token_dim, num_tokens, streams, head, decoding, optimisation, prompt_drop, seed, ratio_per_rank: see
            AudioSystem.
        backbone: a causal backbone.
        masking_mode: what becomes of masked inputs: `none` are masked (row A), or they are replaced by `zero` (C, F) or
            `gaussian` noise (D), or left out, `drop` (E).
        mask_ratio: distribution of the share of masked inputs; required unless `masking_mode` is `none`.
    """

    held_out_task = "ntp"
    backbone: CausalTransformer
    length_multiple = 1  # of the number of inputs of a training step; see `callbacks.Compile`

    def __init__(
        self,
        token_dim: int,
        num_tokens: int,
        streams: dict[str, TextStream],
        backbone: CausalBackboneFactory,
        head: HeadFactory,
        masking_mode: MaskingMode = "none",
        mask_ratio: MaskRatio | None = None,
        decoding: Decoding = Decoding(),
        optimisation: Optimisation = Optimisation(),
        prompt_drop: float = 0.1,
        seed: int = 0,
        ratio_per_rank: bool = False,
    ) -> None:
        super().__init__(
            token_dim, num_tokens, streams, backbone, head, decoding, optimisation, prompt_drop, seed, ratio_per_rank
        )
        if masking_mode != "none" and mask_ratio is None:
            raise ValueError(
                f"masking_mode: {masking_mode} requires a mask ratio distribution: set model.init_args.mask_ratio"
            )
        self.masking_mode = masking_mode
        self.mask_ratio = mask_ratio

    def draw_ratio(self, generator: torch.Generator) -> float:
        """From the distribution; 0 where nothing is masked."""
        return 0.0 if self.mask_ratio is None or self.masking_mode == "none" else self.mask_ratio.sample(generator)

    def task(self, tokens: Tensor, ratio: float, generator: torch.Generator) -> CausalTask:
        """Inputs and targets of one training step."""
        batch, num_tokens = tokens.shape[:2]
        num_hidden = num_hidden_when_dropping(ratio, num_tokens)
        mask = random_mask(batch, num_tokens, num_hidden, generator)
        first = torch.zeros(batch, 1, dtype=torch.long, device=tokens.device)
        if self.masking_mode == "drop":
            # x^n, where it is kept, comes last: it is fed, for equal lengths, and has nothing to predict.
            kept = kept_positions(mask, num_hidden)
            targets = torch.cat([first, kept + 1], dim=1)
            return CausalTask(gather_rows(tokens, kept), kept, targets, scored=targets < num_tokens)
        positions = torch.arange(num_tokens, device=tokens.device).expand(batch, -1)
        fed = corrupt(tokens, mask, self.masking_mode, generator)
        return CausalTask(fed[:, :-1], positions[:, :-1], positions)

    def target_embedding(self, targets: Tensor) -> Tensor | None:
        """Embedding [B, T, C] of the places to predict, or None where inputs aren't told."""
        return None

    def pairs(self, tokens: Tensor, prompt: Tensor, ratio: float, generator: torch.Generator) -> Predictions:
        """Run the task through the backbone."""
        return self._run(self.task(tokens, ratio, generator), prompt)

    def held_out_pairs(self, tokens: Tensor, prompt: Tensor, index: Tensor) -> Predictions:
        """Full context, nothing hidden: every input predicts its immediate successor."""
        positions = torch.arange(self.num_tokens, device=tokens.device).expand(len(tokens), -1)
        return self._run(CausalTask(tokens[:, :-1], positions[:, :-1], positions), prompt)

    def decode(
        self, prompt: Tensor, fake_prompt: Tensor, noise: ClipNoise, known: Tensor, num_tokens: int
    ) -> Iterator[DecodingState]:
        """As many at a time and in the order that `calls` says; at least `num_tokens`.

        Raises:
            ValueError: see `calls`.
        """
        counts, orders = self.calls(noise, known.shape[1], num_tokens)
        return decode_autoregressive(
            self.backbone,
            self.head,
            prompt,
            fake_prompt,
            noise,
            self.decoding,
            known,
            counts,
            orders,
            self.target_embedding,
        )

    def calls(self, noise: ClipNoise, num_known: int, num_tokens: int) -> tuple[list[int], Tensor | None]:
        """Tokens asked at each call of the backbone, and the order of positions [B, N]: here one, left to right."""
        return [1] * (num_tokens - num_known), None

    def _run(self, task: CausalTask, prompt: Tensor) -> Predictions:
        """Contexts of a task; in training behind inputs that fill its length up to `length_multiple`.

        No input attends to those behind it, and their own contexts go no further.
        """
        length = task.targets.shape[1]
        filling = -length % self.length_multiple if self.training else 0
        fed = F.pad(task.fed, (0, 0, 0, filling))
        positions, targets = (F.pad(places, (0, filling)) for places in (task.positions, task.targets))
        z = self.backbone(prompt, fed, positions, self.target_embedding(targets))
        return Predictions(z[:, :length], task.targets, task.scored)

"""The loss on held-out clips with fixed noise, by which models of one task and kind of head are compared.

B clips, T pairs of a clip, D token_dim.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import lightning as L
import torch
from einops import rearrange
from torch import Tensor

from mntp.batch import TokenBatch
from mntp.conditioning.prompt import PromptEncoder
from mntp.heads import Head
from mntp.module import HeldOutMetric
from mntp.seeding import make_generator
from mntp.systems.predictions import Predictions, gather_targets


class MeasuresHeldOutLoss(L.LightningModule, ABC):
    """The part of a system that validates and tests it.

    Attributes:
        held_out_task: what is predicted from what, the first part of the loss's name.
    """

    held_out_task: ClassVar[str]
    token_dim: int
    prompt: PromptEncoder
    head: Head
    _held_out: dict[str, Tensor]  # sums of losses and numbers of pairs [2], by suffix

    @abstractmethod
    def held_out_pairs(self, tokens: Tensor, prompt: Tensor, index: Tensor) -> Predictions:
        """Contexts of the held-out loss, a function of the clips alone.

        Args:
            tokens: [B, N, D].
            prompt: [B, P, C].
            index: [B] int64, the clips' rows in the store.
        """

    @property
    def held_out_name(self) -> str:
        """Task and measure, as logged: `ntp_loss`; losses of other tasks or heads have other names."""
        return f"{self.held_out_task}_{self.head.held_out_name}"

    @property
    def held_out_metric(self) -> HeldOutMetric:
        """The held-out loss of this task and head."""
        return HeldOutMetric(self.held_out_name, self.head.held_out_digits, self.head.held_out_better)

    @torch.no_grad()
    def held_out_losses(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Loss of every held-out pair with fixed noise, and whether its target holds sound: both [B, T].

        Noise and noise levels depend on the clip's row alone, so that every model is measured on the same draws.
        """
        pairs = self.held_out_pairs(batch.tokens, self.prompt(batch.text), batch.index)
        levels, noise = draw_levels_and_noise(batch.index, pairs.positions.shape[1], self.token_dim)
        losses = self.head.held_out_loss(
            rearrange(pairs.z, "b t c -> (b t) c"),
            gather_targets(batch, pairs.positions, self.head).flatten(0, 1),
            levels.to(self.device),
            noise.to(self.device),
        )
        return losses.view(pairs.positions.shape), batch.valid.gather(1, pairs.positions)

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self._held_out = {}

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add up the held-out loss: over all tokens, and over sound and padding separately.

        Returns:
            `rows`, the clips' rows [B], and for each `<held_out_name>[_sound|_padding]` the clips' sums of losses and
            numbers of tokens [2, B], float64.
        """
        losses, sound = self.held_out_losses(batch)
        clips = {"rows": batch.index}
        for suffix, chosen in {"": torch.ones_like(sound), "_sound": sound, "_padding": ~sound}.items():
            sums = torch.stack([(losses.double() * chosen).sum(dim=1), chosen.double().sum(dim=1)])
            self._held_out[suffix] = self._held_out.get(suffix, 0.0) + sums.sum(dim=1)
            clips[f"{self.held_out_name}{suffix}"] = sums
        return clips

    def on_validation_epoch_end(self) -> None:
        """Log the means as `val/<held_out_name>[_sound|_padding]`; a part without tokens is not logged."""
        self._log_held_out("val")

    def on_test_epoch_start(self) -> None:
        """Reset the sums."""
        self._held_out = {}

    def test_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """As in validation, on the test split."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the means as `test/<held_out_name>...`."""
        self._log_held_out("test")

    def _log_held_out(self, stage: str) -> None:
        for suffix, total in self._held_out.items():
            loss, count = self.trainer.strategy.reduce(total, reduce_op="sum")
            if count > 0:
                self.log(f"{stage}/{self.held_out_name}{suffix}", (loss / count).float(), prog_bar=not suffix)


def draw_levels_and_noise(index: Tensor, num_pairs: int, token_dim: int) -> tuple[Tensor, Tensor]:
    """Noise levels in [0, 1), stratified over a clip's pairs, and noise: functions of the clips' rows.

    Args:
        index: [B] int64, the clips' rows in the store.
        num_pairs: T.
        token_dim: D.

    Returns:
        [B T] and [B T, D], on the CPU.
    """
    levels, noise = [], []
    for row in index.tolist():
        generator = make_generator("held-out", row)
        strata = torch.randperm(num_pairs, generator=generator) + torch.rand(num_pairs, generator=generator)
        levels.append(strata / num_pairs)
        noise.append(torch.randn(num_pairs, token_dim, generator=generator))
    return torch.cat(levels).clamp(max=1 - 1e-6), torch.cat(noise)

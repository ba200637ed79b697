"""AudioNTP: next-token prediction over continuous tokens, with or without input masking (paper section 3.1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mntp.backbones import CausalBackbone, CausalBackboneFactory, ShortContextFactory, SummedContext
from mntp.backbones.base import gather_rows
from mntp.masking import (
    CORRUPTIONS,
    Corruption,
    MaskingMode,
    MaskRatio,
    kept_positions,
    num_hidden_when_dropping,
    random_mask,
)
from mntp.samplers import ClipNoise, DecodingState, TokenDrawer, decode_autoregressive
from mntp.seeding import derive_seed
from mntp.systems.base import AudioSystem
from mntp.systems.predictions import Predictions


@dataclass
class CausalTask:
    """Inputs and targets of a causal system.

    Attributes:
        inputs: [B, T - 1, D] tokens after BOS.
        positions: [B, T - 1] int64, their places.
        targets: [B, T] int64, the place that each input is to predict; N where there is nothing to predict.
        scored: [B, T] bool, False where there is nothing to predict; None where every input has a target.
        clean: [B, T - 1, D], the inputs before their corruption, for the short context; None where nothing was
            corrupted.
    """

    inputs: Tensor
    positions: Tensor
    targets: Tensor
    scored: Tensor | None = None
    clean: Tensor | None = None


class AudioNTP(AudioSystem):
    """Each input predicts its immediate successor (Table 3, rows A-F).

    Args:
        backbone: a causal backbone.
        masking_mode: what becomes of masked inputs: nothing is masked with `none` (row A); they are replaced by `zero`
            (C, F) or `gaussian` noise (D), mixed with `noise` or `noise_linear` (CALM), or left out, `drop` (E). Or a
            Corruption, by its class_path.
        mask_ratio: distribution of the share of masked inputs. `none` ignores it; the noises of CALM go without, which
            corrupts every input; the others require it.
        short_context: builds a network of the last clean tokens whose contexts are added to those of the backbone
            (CALM); None adds nothing.
        shared: the other arguments of AudioSystem.

    Raises:
        ValueError: the masking mode requires a mask ratio, and there is none.
    """

    held_out_task = "ntp"
    backbone: CausalBackbone

    def __init__(
        self,
        backbone: CausalBackboneFactory,
        masking_mode: MaskingMode | Corruption = "none",
        mask_ratio: MaskRatio | None = None,
        short_context: ShortContextFactory | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(backbone=backbone, **shared)
        self.masking_mode = masking_mode
        if isinstance(masking_mode, str):
            self.corruption = CORRUPTIONS[masking_mode]() if masking_mode in CORRUPTIONS else None
        else:
            self.corruption = masking_mode
        requires_ratio = masking_mode == "drop" or (self.corruption is not None and self.corruption.needs_mask_ratio)
        if requires_ratio and mask_ratio is None:
            mode = masking_mode if isinstance(masking_mode, str) else type(masking_mode).__name__
            raise ValueError(f"masking_mode: {mode} requires a mask ratio distribution: set model.init_args.mask_ratio")
        self.mask_ratio = None if masking_mode == "none" else mask_ratio
        self.short_context = None
        if short_context is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(self.seed, "weights of the short context"))
                self.short_context = short_context(token_dim=self.token_dim, dim=self.backbone.dim)

    def draw_ratio(self, generator: torch.Generator) -> float:
        """From the distribution; 0 where nothing is masked."""
        return 0.0 if self.mask_ratio is None else self.mask_ratio.sample(generator)

    def task(self, tokens: Tensor, ratio: float, generator: torch.Generator) -> CausalTask:
        """Inputs and targets of one training step.

        Args:
            tokens: [B, N, D].
            ratio: share of masked tokens.
            generator: chooses the masked positions and draws what stands there.
        """
        batch, num_tokens = tokens.shape[:2]
        num_hidden = num_hidden_when_dropping(ratio, num_tokens)
        mask = random_mask(batch, num_tokens, num_hidden, generator)
        first = torch.zeros(batch, 1, dtype=torch.long, device=tokens.device)
        if self.masking_mode == "drop":
            # x^n, where it is kept, comes last: it is an input, for equal lengths, and has nothing to predict.
            kept = kept_positions(mask, num_hidden)
            targets = torch.cat([first, kept + 1], dim=1)
            return CausalTask(gather_rows(tokens, kept), kept, targets, scored=targets < num_tokens)
        positions = torch.arange(num_tokens, device=tokens.device).expand(batch, -1)
        if self.corruption is None:
            return CausalTask(tokens[:, :-1], positions[:, :-1], positions)
        corrupted = self.corruption(tokens, None if self.mask_ratio is None else mask, generator)
        return CausalTask(corrupted[:, :-1], positions[:, :-1], positions, clean=tokens[:, :-1])

    def target_embedding(self, targets: Tensor) -> Tensor | None:
        """Embedding [B, T, C] of the places to predict [B, T], or None where inputs aren't told."""
        return None

    def pairs(self, tokens: Tensor, prompt: Tensor, ratio: float, generator: torch.Generator) -> Predictions:
        """Contexts and targets of the task."""
        return self._run(self.task(tokens, ratio, generator), prompt)

    def held_out_pairs(self, tokens: Tensor, prompt: Tensor, index: Tensor) -> Predictions:
        """Full context, nothing masked: every input predicts its immediate successor."""
        positions = torch.arange(self.num_tokens, device=tokens.device).expand(len(tokens), -1)
        return self._run(CausalTask(tokens[:, :-1], positions[:, :-1], positions), prompt)

    def decode(
        self, prompt: Tensor, fake_prompt: Tensor, noise: ClipNoise, known: Tensor, num_tokens: int
    ) -> Iterator[DecodingState]:
        """As many tokens at a time and in the order that `calls` says; at least `num_tokens`.

        Raises:
            ValueError: see `calls`.
        """
        counts, orders = self.calls(noise, known.shape[1], num_tokens)
        backbone = self.backbone if self.short_context is None else SummedContext(self.backbone, self.short_context)
        drawer = TokenDrawer(self.head, self.decoding, noise, self.num_tokens)
        prompts = drawer.branches(prompt, fake_prompt)
        return decode_autoregressive(backbone, drawer, prompts, known, counts, orders, self.target_embedding)

    def calls(self, noise: ClipNoise, num_known: int, num_tokens: int) -> tuple[list[int], Tensor | None]:
        """Tokens predicted at each call of the backbone, and the order of positions [B, N]: here one, left to right."""
        return [1] * (num_tokens - num_known), None

    def _run(self, task: CausalTask, prompt: Tensor) -> Predictions:
        """Contexts of a task. In training its inputs are filled up to `length_multiple`.

        No input attends to those after it, and the contexts of the filling are cut off.
        """
        length = task.targets.shape[1]
        filling = -length % self.length_multiple if self.training else 0
        inputs = F.pad(task.inputs, (0, 0, 0, filling))
        positions, targets = (F.pad(places, (0, filling)) for places in (task.positions, task.targets))
        z = self.backbone(prompt, inputs, positions, self.target_embedding(targets))[:, :length]
        if self.short_context is not None:
            z = z + self.short_context(task.inputs if task.clean is None else task.clean, task.positions)
        return Predictions(z, task.targets, task.scored)

"""What every system shares: its parts, the training loss, and optimisation.

A system answers two questions: given clean tokens, what is put in and what is predicted (`pairs`), and how is it
decoded (`decode`)? B clips, N tokens of a clip, D token_dim, P prompt length, C model width, T scored pairs of a clip.
"""

from abc import abstractmethod
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from mntp.backbones import BackboneFactory
from mntp.batch import TextStream, TokenBatch
from mntp.conditioning.prompt import PromptEncoder
from mntp.heads import HeadFactory
from mntp.module import SuiteModule
from mntp.samplers import Decoding
from mntp.seeding import derive_seed, make_generator
from mntp.systems.generation import GeneratesTokens
from mntp.systems.held_out import MeasuresHeldOutLoss
from mntp.systems.optimisation import Optimisation, build_adamw
from mntp.systems.predictions import Predictions, gather_targets
from mntp.systems.preprocessing import KeepsPreprocessing

# Half precision is for matrix products alone, by autocast: weights, norms, noisy tokens and losses stay in float32.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


class AudioSystem(GeneratesTokens, MeasuresHeldOutLoss, KeepsPreprocessing, SuiteModule):
    """Base of AudioNTP, AudioMNTP and AudioMAR.

    Args:
        token_dim: D, as in the prepared data.
        num_tokens: N, as in the prepared data.
        streams: text streams of the prompt by name, in the order of their positions (Table 5 leaves one out).
        backbone: builds the network from inputs to contexts.
        head: builds the distribution of a token given its context.
        decoding: how tokens are drawn; changes nothing that is trained.
        optimisation: optimiser and warm-up.
        prompt_drop: probability that a clip is trained under the fake prompt (guidance).
        seed: of the weights and of all randomness in training; the order of the data has its own.
        ratio_per_rank: draw a mask ratio for each rank, as MAR does, instead of one for all.

    Attributes:
        length_multiple: fill the inputs of a training step up to a multiple of this length, which compiled training
            asks for (`callbacks.Compile`). Losses don't change. Systems whose attention looks ahead ignore it.

    Raises:
        ValueError: prompt_drop is out of range, or the head can't be sampled as `decoding` says.
    """

    def __init__(
        self,
        token_dim: int,
        num_tokens: int,
        streams: dict[str, TextStream],
        backbone: BackboneFactory,
        head: HeadFactory,
        decoding: Decoding = Decoding(),
        optimisation: Optimisation = Optimisation(),
        prompt_drop: float = 0.1,
        seed: int = 0,
        ratio_per_rank: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not 0 <= prompt_drop < 1:
            raise ValueError(f"prompt_drop must lie in [0, 1), got {prompt_drop}")
        self.token_dim = token_dim
        self.num_tokens = num_tokens
        self.optimisation = optimisation
        self.prompt_drop = prompt_drop
        self.seed = seed
        self.ratio_per_rank = ratio_per_rank
        self.length_multiple = 1
        self._held_out = {}
        prompt_length = sum(stream.max_length for stream in streams.values())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))  # the same on every rank
            self.backbone = backbone(token_dim=token_dim, num_tokens=num_tokens, prompt_length=prompt_length)
            self.prompt = PromptEncoder(streams, self.backbone.dim)
            self.head = head(token_dim=token_dim, cond_dim=self.backbone.dim)
        self._decoding = decoding.for_head(self.head)  # what the head can't do fails here, not after training

    @abstractmethod
    def draw_ratio(self, generator: torch.Generator) -> float:
        """Draw the mask ratio of one optimiser step from a CPU generator."""

    @abstractmethod
    def pairs(self, tokens: Tensor, prompt: Tensor, ratio: float, generator: torch.Generator) -> Predictions:
        """Contexts of one training step.

        Args:
            tokens: [B, N, D].
            prompt: [B, P, C].
            ratio: share of masked tokens.
            generator: chooses the positions, clip by clip.
        """

    def loss(self, batch: TokenBatch, ratio: float, generator: torch.Generator, step: int = 0) -> Tensor:
        """Training loss of a batch; a function of its arguments, except for dropout.

        Args:
            batch: B clips.
            ratio: share of masked tokens.
            generator: of positions, noise and dropped prompts; on this module's device.
            step: optimiser step, for heads whose objective depends on it.

        Returns:
            [] the mean over the scored pairs.
        """
        drop = torch.rand(len(batch.tokens), generator=generator, device=self.device) < self.prompt_drop
        pairs = self.pairs(batch.tokens, self.prompt(batch.text, drop), ratio, generator)
        targets = gather_targets(batch, pairs.positions.clamp(max=self.num_tokens - 1), self.head).flatten(0, 1)
        z = rearrange(pairs.z, "b t c -> (b t) c")
        if pairs.scored is not None:
            scored = pairs.scored.flatten()
            z, targets = z[scored], targets[scored]
        return self.head.loss(z, targets, generator, step).mean()

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """One micro-batch. All randomness is a function of (seed, step, rank), so that a resumed run draws the same.

        The ratio depends on the optimiser step alone (the paper: once a step), and on the rank if `ratio_per_rank`.
        """
        micro_step = int(self._batches_done.processed)
        rank = (self.global_rank,) if self.ratio_per_rank else ()
        ratio = self.draw_ratio(make_generator(self.seed, "ratio", self.global_step, *rank))
        torch.manual_seed(derive_seed(self.seed, "dropout", micro_step, self.global_rank))
        generator = make_generator(self.seed, "train", micro_step, self.global_rank, device=self.device)
        loss = self.loss(batch, ratio, generator, self.global_step)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/ratio", ratio)
        return loss

    @property
    def _batches_done(self) -> Any:
        """Lightning's count of batches over all epochs; `processed` is right after a resume from any hook's save."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total

    def configure_optimizers(self) -> Any:
        """AdamW with a linear warm-up."""
        optimizer = build_adamw(self, self.optimisation)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.optimisation.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Check the precision, and take the preprocessing of the data that the trainer runs on.

        Raises:
            ValueError: the trainer would keep the weights themselves in half precision; or see `attach_preprocessing`.
        """
        if self.trainer.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision {self.trainer.precision} would keep weights, norms and their average in half "
                f"precision; expected one of {', '.join(PRECISIONS)}: set bf16-mixed"
            )
        super().setup(stage)

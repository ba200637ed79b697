"""What every system shares: reduction of losses, guidance dropping, held-out losses, optimisation, front end.

A system answers two questions: given clean tokens, what goes in and what is scored (`pairs`), and how is it decoded
(`decode`)? B clips, N tokens of a clip, D token_dim, P prompt length, C model width, T scored pairs of a clip.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor

from mntp.backbones import BackboneFactory
from mntp.backbones.base import gather_rows
from mntp.batch import TextStates, TextStream, TokenBatch
from mntp.conditioning.prompt import PromptEncoder
from mntp.heads import HeadFactory
from mntp.module import HeldOutMetric, SuiteModule
from mntp.samplers import ClipNoise, Decoding, DecodingState
from mntp.samplers.settings import Progress
from mntp.seeding import derive_seed, make_generator
from mntp.systems.optimisation import Optimisation, build_adamw

# Half precision is for the matrix products alone, by autocast: weights, norms, noisy tokens, losses stay in float32.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


@dataclass
class Predictions:
    """The pairs of context and target that a system scores in a batch.

    Attributes:
        z: contexts [B, T, C].
        positions: [B, T] int64, the place of the token that each context predicts.
        scored: [B, T] bool, False where a context has no target; None where all have one.
    """

    z: Tensor
    positions: Tensor
    scored: Tensor | None = None


@runtime_checkable
class PreparedData(Protocol):
    """What a system asks of the DataModule that it runs with."""

    @property
    def front_end(self) -> dict[str, Any]:
        """Tokenizer, text encoder and clip length behind the tokens, as tensors and plain values."""
        ...


class AudioSystem(SuiteModule):
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
    """

    held_out_task: ClassVar[str]

    def __init__(
        self,
        token_dim: int,
        num_tokens: int,
        streams: dict[str, TextStream],
        backbone: BackboneFactory,
        head: HeadFactory,
        decoding: Decoding,
        optimisation: Optimisation,
        prompt_drop: float,
        seed: int,
        ratio_per_rank: bool,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not 0 <= prompt_drop < 1:
            raise ValueError(f"prompt_drop must lie in [0, 1), got {prompt_drop}")
        self.token_dim = token_dim
        self.num_tokens = num_tokens
        self.decoding = decoding
        self.optimisation = optimisation
        self.prompt_drop = prompt_drop
        self.seed = seed
        self.ratio_per_rank = ratio_per_rank
        self.front_end: dict[str, Any] | None = None
        self._held_out: dict[str, Tensor] = {}
        prompt_length = sum(stream.max_length for stream in streams.values())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))  # the same on every rank
            self.backbone = backbone(token_dim=token_dim, num_tokens=num_tokens, prompt_length=prompt_length)
            self.prompt = PromptEncoder(streams, self.backbone.dim)
            self.head = head(token_dim=token_dim, cond_dim=self.backbone.dim)
        self.head.check(decoding)  # what the head can't do fails here, not after training

    def check(self, decoding: Decoding) -> None:
        """Refuse, before anything is drawn, what `decode` could not do.

        Raises:
            ValueError: the head, or the model as it was trained, can't be asked in that way.
        """
        self.head.check(decoding)

    @abstractmethod
    def draw_ratio(self, generator: torch.Generator) -> float:
        """Draw the mask ratio of one optimiser step from a CPU generator."""

    @abstractmethod
    def pairs(self, tokens: Tensor, prompt: Tensor, ratio: float, generator: torch.Generator) -> Predictions:
        """Contexts of one training step.

        Args:
            tokens: [B, N, D].
            prompt: [B, P, C].
            ratio: share of hidden tokens.
            generator: chooses the positions, clip by clip.
        """

    @abstractmethod
    def held_out_pairs(self, tokens: Tensor, prompt: Tensor, index: Tensor) -> Predictions:
        """Contexts of the held-out loss, a function of the clips alone (`index` [B]: their rows in the store)."""

    @abstractmethod
    def decode(
        self, prompt: Tensor, fake_prompt: Tensor, noise: ClipNoise, known: Tensor, num_tokens: int
    ) -> Iterator[DecodingState]:
        """Draw tokens under prompts [B, P, C], as `self.decoding` says, in pieces.

        Args:
            prompt: [B, P, C].
            fake_prompt: [B, P, C].
            noise: the draws.
            known: [B, m, D], the first tokens of each clip where they are given.
            num_tokens: how many tokens from the first on are wanted; more may come.
        """

    # --- training -------------------------------------------------------------------------------------------------

    def loss(self, batch: TokenBatch, ratio: float, generator: torch.Generator) -> Tensor:
        """Training loss of a batch, the mean over its scored pairs; a function of its arguments but for dropout."""
        drop = torch.rand(len(batch.tokens), generator=generator, device=self.device) < self.prompt_drop
        pairs = self.pairs(batch.tokens, self.prompt(batch.text, drop), ratio, generator)
        targets = gather_rows(batch.tokens, pairs.positions.clamp(max=self.num_tokens - 1))
        z, x = rearrange(pairs.z, "b t c -> (b t) c"), rearrange(targets, "b t d -> (b t) d")
        if pairs.scored is not None:
            scored = pairs.scored.flatten()
            z, x = z[scored], x[scored]
        return self.head.loss(z, x, generator).mean()

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """One micro-batch. Everything random is a function of (seed, step, rank), so a resumed run draws the same.

        The ratio depends on the optimiser step alone (the paper: once a step), and on the rank if `ratio_per_rank`.
        """
        micro_step = int(self._batches_done.processed)
        rank = (self.global_rank,) if self.ratio_per_rank else ()
        ratio = self.draw_ratio(make_generator(self.seed, "ratio", self.global_step, *rank))
        torch.manual_seed(derive_seed(self.seed, "dropout", micro_step, self.global_rank))
        generator = make_generator(self.seed, "train", micro_step, self.global_rank, device=self.device)
        loss = self.loss(batch, ratio, generator)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/ratio", ratio)
        return loss

    @property
    def _batches_done(self) -> Any:
        """Lightning's count of batches over all epochs; `processed` is right after a resume from any hook's save."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total

    def configure_optimizers(self) -> Any:
        """AdamW behind a linear warm-up."""
        optimizer = build_adamw(self, self.optimisation)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.optimisation.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # --- held-out losses ------------------------------------------------------------------------------------------

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

        Noise and noise levels are functions of the clip's row, the levels stratified over a clip's pairs: every model
        is measured on the same draws.
        """
        pairs = self.held_out_pairs(batch.tokens, self.prompt(batch.text), batch.index)
        num_pairs = pairs.positions.shape[1]
        levels, noise = [], []
        for row in batch.index.tolist():
            generator = make_generator("held-out", row)
            strata = torch.randperm(num_pairs, generator=generator) + torch.rand(num_pairs, generator=generator)
            levels.append(strata / num_pairs)
            noise.append(torch.randn(num_pairs, self.token_dim, generator=generator))
        losses = self.head.held_out_loss(
            rearrange(pairs.z, "b t c -> (b t) c"),
            rearrange(gather_rows(batch.tokens, pairs.positions), "b t d -> (b t) d"),
            torch.cat(levels).clamp(max=1 - 1e-6).to(self.device),
            torch.cat(noise).to(self.device),
        )
        return losses.view(pairs.positions.shape), batch.valid.gather(1, pairs.positions)

    def on_validation_epoch_start(self) -> None:
        """Forget the sums of the last epoch."""
        self._held_out = {}

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add up the held-out loss, over all tokens and over sound and padding apart.

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
        """Forget the sums of the last epoch."""
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

    # --- sound ----------------------------------------------------------------------------------------------------

    def generate(
        self,
        text: dict[str, TextStates],
        seeds: Sequence[int],
        progress: Progress | None = None,
        prefix: Tensor | None = None,
        num_tokens: int | None = None,
    ) -> Tensor:
        """Draw tokens for a batch of embedded captions.

        Args:
            text: text states of B captions, on this module's device.
            seeds: B integers; a clip is a function of its caption and seed.
            progress: called with (tokens drawn, tokens in all).
            prefix: [B, m, D], tokens that the clips begin with, to be continued.
            num_tokens: tokens wanted, the first of a clip; None is all.

        Returns:
            [B, num_tokens, D] float32, normalised as the training tokens were.
        """
        for drawn in self._drawn(text, seeds, prefix, num_tokens):
            if progress is not None:
                progress(drawn.num_drawn, drawn.tokens.shape[1])
        return drawn.tokens[:, :num_tokens]

    def iterate(
        self,
        text: dict[str, TextStates],
        seeds: Sequence[int],
        prefix: Tensor | None = None,
        num_tokens: int | None = None,
    ) -> Iterator[tuple[Tensor, int]]:
        """As `generate`, piece by piece.

        Args:
            text: as in `generate`.
            seeds: as in `generate`.
            prefix: as in `generate`.
            num_tokens: as in `generate`.

        Yields:
            Tokens [B, num_tokens, D] float32, the same tensor each time, and how many from the first on are final.

        Raises:
            ValueError: a prefix or a number of tokens that doesn't fit the model.
        """
        for drawn in self._drawn(text, seeds, prefix, num_tokens):
            tokens = drawn.tokens[:, :num_tokens]
            yield tokens, min(drawn.leading, tokens.shape[1])

    @torch.no_grad()
    def _drawn(
        self, text: dict[str, TextStates], seeds: Sequence[int], prefix: Tensor | None, num_tokens: int | None
    ) -> Iterator[DecodingState]:
        num_tokens = self.num_tokens if num_tokens is None else num_tokens
        if not 1 <= num_tokens <= self.num_tokens:
            raise ValueError(f"num_tokens is {num_tokens}; the model draws 1 to {self.num_tokens} tokens a clip")
        if prefix is None:
            prefix = torch.zeros(len(seeds), 0, self.token_dim)
        if prefix.shape != (len(seeds), prefix.shape[1], self.token_dim) or prefix.shape[1] > num_tokens:
            raise ValueError(
                f"a prefix of shape {list(prefix.shape)}; expected [{len(seeds)}, at most {num_tokens}, "
                f"{self.token_dim}]"
            )
        was_training = self.training
        self.eval()
        try:
            with self._products():
                prompt = self.prompt(text)
            noise = ClipNoise(seeds, self.device)
            yield from self.steps(prompt, self.prompt.fake(len(prompt)), noise, prefix.to(self.device), num_tokens)
        finally:
            self.train(was_training)

    def steps(
        self, prompt: Tensor, fake_prompt: Tensor, noise: ClipNoise, known: Tensor, num_tokens: int
    ) -> Iterator[DecodingState]:
        """`decode`, in the precision that the matrices are kept in."""
        steps = self.decode(prompt, fake_prompt, noise, known, num_tokens)
        while True:
            with self._products():  # not around the yield: the caller's work is his own
                drawn = next(steps, None)
            if drawn is None:
                return
            yield drawn

    def _products(self) -> AbstractContextManager[object]:
        """Products in bfloat16 where the matrices are (`matrices_to_bfloat16`); else as the trainer has set."""
        if self.backbone.token_proj.weight.dtype != torch.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Tokens [B, N, D] for a batch's captions, seeded by the clips' rows."""
        return self.generate(batch.text, [derive_seed(self.seed, "clip", row) for row in batch.index.tolist()])

    # --- front end ------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the front end of the data that the trainer runs on.

        Raises:
            ValueError: the trainer would keep the weights themselves in half precision; or see `attach_front_end`.
        """
        if self.trainer.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision {self.trainer.precision} would keep weights, norms and their average in half "
                f"precision; expected one of {', '.join(PRECISIONS)}: set bf16-mixed"
            )
        datamodule = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, PreparedData):
            self.attach_front_end(datamodule.front_end)

    def attach_front_end(self, front_end: dict[str, Any]) -> None:
        """Keep what the tokens were made with, so that it travels with the checkpoint.

        Raises:
            ValueError: it doesn't fit the model, or another one is attached already.
        """
        tokenizer = front_end["tokenizer"]
        found = (front_end["token_dim"], front_end["num_tokens"])
        if found != (self.token_dim, self.num_tokens):
            raise ValueError(
                f"the data has {found[1]} tokens of {found[0]} values a clip, the model "
                f"expects {self.num_tokens} of {self.token_dim}: set model.init_args.num_tokens and token_dim, or "
                "prepare the data anew"
            )
        if self.front_end is not None and self.front_end["tokenizer"]["fingerprint"] != tokenizer["fingerprint"]:
            mine = self.front_end["tokenizer"]
            raise ValueError(
                f"the model was trained on tokens of {mine['class']} {mine['fingerprint']} {mine['settings']}, the "
                f"data was made with {tokenizer['class']} {tokenizer['fingerprint']} {tokenizer['settings']}: use the "
                "store that the model was trained on, or train anew"
            )
        self.front_end = front_end

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the front end into the checkpoint."""
        checkpoint["front_end"] = self.front_end

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the front end from the checkpoint; refuse one of another tokenizer."""
        front_end = checkpoint.get("front_end")
        if front_end is not None:
            self.attach_front_end(front_end)

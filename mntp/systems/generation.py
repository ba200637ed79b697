"""Drawing tokens from a trained system: `generate` all at once, `stream` piece by piece. Systems implement `decode`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import lightning as L
import torch
from torch import Tensor

from mntp.batch import TextStates, TokenBatch
from mntp.conditioning.prompt import PromptEncoder
from mntp.heads import Head
from mntp.samplers import ClipNoise, Decoding, DecodingState
from mntp.samplers.settings import Progress
from mntp.seeding import derive_seed


class GeneratesTokens(L.LightningModule, ABC):
    """The part of a system that draws tokens.

    Attributes:
        decoding: how tokens are drawn. What is assigned is checked, and gets settings of the head's own type.
    """

    token_dim: int
    num_tokens: int
    seed: int
    prompt: PromptEncoder
    head: Head
    _decoding: Decoding

    @property
    def decoding(self) -> Decoding:
        """How tokens are drawn, complete and checked."""
        return self._decoding

    @decoding.setter
    def decoding(self, decoding: Decoding) -> None:
        self._decoding = self.check_decoding(decoding)

    def check_decoding(self, decoding: Decoding) -> Decoding:
        """The same decoding with settings of the head's own type.

        Raises:
            ValueError: the head, or the model as it was trained, can't be decoded in this way.
        """
        return decoding.for_head(self.head)

    @abstractmethod
    def decode(
        self, prompt: Tensor, fake_prompt: Tensor, noise: ClipNoise, known: Tensor, num_tokens: int
    ) -> Iterator[DecodingState]:
        """Draw tokens as `self.decoding` says, in pieces.

        Args:
            prompt: [B, P, C].
            fake_prompt: [B, P, C], for guidance.
            noise: the draws.
            known: [B, m, D], the first tokens of each clip where they are given.
            num_tokens: how many tokens from the first on are wanted; more may be drawn.
        """

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

        Raises:
            ValueError: a prefix or a number of tokens that doesn't fit the model.
        """
        for state in self.stream(text, seeds, prefix, num_tokens):
            if progress is not None:
                progress(state.num_drawn, state.num_total)
        return state.tokens

    @torch.no_grad()
    def stream(
        self,
        text: dict[str, TextStates],
        seeds: Sequence[int],
        prefix: Tensor | None = None,
        num_tokens: int | None = None,
    ) -> Iterator[DecodingState]:
        """As `generate`, piece by piece; arguments and errors as there.

        Yields:
            The first `num_tokens` tokens [B, num_tokens, D] as they are so far, and how many of them are final.
        """
        num_tokens = self.num_tokens if num_tokens is None else num_tokens
        prefix = self._check_request(len(seeds), prefix, num_tokens)
        was_training = self.training
        self.eval()
        half = any(parameter.dtype == torch.bfloat16 for parameter in self.parameters())

        def precision() -> AbstractContextManager[object]:
            """Autocast if weights were cast (`matrices_to_bfloat16`); otherwise the trainer's precision."""
            return torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()

        try:
            with precision():
                prompt = self.prompt(text)
            noise = ClipNoise(seeds, self.device)
            states = self.decode(prompt, self.prompt.fake(len(prompt)), noise, prefix.to(self.device), num_tokens)
            while True:
                with precision():  # not around the yield: autocast would reach the caller's code
                    state = next(states, None)
                if state is None:
                    return
                yield state.first(num_tokens)
        finally:
            self.train(was_training)

    def _check_request(self, num_clips: int, prefix: Tensor | None, num_tokens: int) -> Tensor:
        """The prefix, empty where there is none."""
        if not 1 <= num_tokens <= self.num_tokens:
            raise ValueError(f"num_tokens is {num_tokens}; the model draws 1 to {self.num_tokens} tokens a clip")
        if prefix is None:
            return torch.zeros(num_clips, 0, self.token_dim)
        if prefix.shape != (num_clips, prefix.shape[1], self.token_dim) or prefix.shape[1] > num_tokens:
            raise ValueError(
                f"a prefix of shape {list(prefix.shape)}; expected [{num_clips}, at most {num_tokens}, "
                f"{self.token_dim}]"
            )
        return prefix

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Tokens [B, N, D] for a batch's captions, seeded by the clips' rows."""
        return self.generate(batch.text, [derive_seed(self.seed, "clip", row) for row in batch.index.tolist()])

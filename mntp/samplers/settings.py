"""What every sampler shares: the settings of decoding."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Self

from torch import Tensor

from mntp.conditioning.guidance import Guidance
from mntp.heads import Head, HeadSampling

Progress = Callable[[int, int], None]  # called with (tokens drawn, tokens in all)


class DecodingState(NamedTuple):
    """A batch of clips while it is decoded.

    Attributes:
        tokens: [B, n, D] float32, the same memory each time; zero where nothing is drawn yet.
        num_drawn: tokens of each clip that are drawn or were given.
        leading: tokens at the start of every clip that won't change again.
        num_total: tokens of each clip that will be drawn or were given in the end; may be more than are wanted.
    """

    tokens: Tensor
    num_drawn: int
    leading: int
    num_total: int

    def first(self, num_tokens: int) -> Self:
        """The same with the first `num_tokens` tokens of each clip alone."""
        return self._replace(tokens=self.tokens[:, :num_tokens], leading=min(self.leading, num_tokens))


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn from a trained system; never part of what is trained.

    Args:
        sampling: how the head draws a token: settings of the head's own type, or plain values of them by name, such as
            {num_steps: 25, solver: ddim}. A system replaces plain values by the settings of its head (`for_head`).
        guidance: classifier-free guidance.
        cuda_graphs: on a GPU, replay each step as a CUDA graph. Off by default: it has been tested without a GPU only.

    Raises:
        ValueError: the guidance is a number.
    """

    sampling: dict[str, Any] | HeadSampling = field(default_factory=dict)
    guidance: Guidance = field(default_factory=Guidance)
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.guidance, Guidance):
            raise ValueError(
                f"decoding.guidance: got {self.guidance!r}, expected a Guidance; its scale alone is guidance_scale"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from plain values, as a resolved configuration or JSON has them."""
        return cls(**{**values, "guidance": Guidance(**values["guidance"])})

    def for_head(self, head: Head) -> Self:
        """The same with `sampling` of the head's own type.

        Raises:
            ValueError: the head has no such setting, or can't be sampled or guided in this way.
        """
        sampling, space, name = head.settings(self.sampling), self.guidance.space, type(head).__name__
        if space is not None and space not in head.guidance_spaces:
            raise ValueError(
                f"decoding.guidance.space: got {space}, but {name} can be guided in "
                f"{', '.join(head.guidance_spaces)} only"
            )
        if self.guides_contexts(head) and not getattr(sampling, "guides_every_step", True):
            raise ValueError(
                "decoding.sampling.guided_steps: guidance in the space of contexts acts on all steps; leave it out, or "
                "set decoding.guidance.space: output"
            )
        return replace(self, sampling=sampling)

    def guides_contexts(self, head: Head) -> bool:
        """Whether guidance acts on contexts rather than within the head."""
        return (self.guidance.space or head.guidance_spaces[0]) == "context"

    @property
    def head_sampling(self) -> HeadSampling:
        """`sampling`, after `for_head`."""
        assert isinstance(self.sampling, HeadSampling), "a system types its decoding's settings when it gets them"
        return self.sampling


@dataclass(frozen=True)
class ParallelDecoding(Decoding):
    """Decoding of AudioMNTP: several positions asked at once from one context, which the paper names as future work.

    The next k positions are drawn independently of each other, from copies of the newest token that are told other
    target positions: in training, too, a kept token predicts one that may stand further on.

    Args:
        tokens_per_call: k, positions asked at once; 1 is the paper's decoding.
        ramp: k grows along the clip from 1 to `tokens_per_call`: the first tokens say most about the others.
        random_order: leave gaps and fill them, instead of going from left to right; for models trained `shuffled`.

    Raises:
        ValueError: fewer than one token a call.
    """

    tokens_per_call: int = 1
    ramp: bool = False
    random_order: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens_per_call < 1:
            raise ValueError(f"decoding.tokens_per_call: expected a number from 1 up, got {self.tokens_per_call}")

    def counts(self, known: int, num_tokens: int) -> list[int]:
        """Tokens asked at each call of the backbone, from `known` tokens to all `num_tokens`."""
        counts = []
        while known < num_tokens:
            k = 1 + (self.tokens_per_call * known) // num_tokens if self.ramp else self.tokens_per_call
            counts.append(min(k, num_tokens - known))
            known += counts[-1]
        return counts


@dataclass(frozen=True)
class MaskedDecoding(Decoding):
    """Decoding of AudioMAR.

    Args:
        order: `random` (MAR) or `causal`, left to right (Table 6).
        num_steps: calls of the backbone; of N tokens `n/4` (the paper's 64) or `n` (its 256), or a number from 1 up
            (more than N is N).

    Raises:
        ValueError: another number or share.
    """

    order: Literal["random", "causal"] = "random"
    num_steps: Literal["n/4", "n"] | int = "n/4"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_steps not in ("n/4", "n") and not (isinstance(self.num_steps, int) and self.num_steps >= 1):
            raise ValueError(f"decoding.num_steps: expected n/4, n or a number from 1 up, got {self.num_steps!r}")

    def calls(self, num_tokens: int) -> int:
        """Calls of the backbone for a clip of `num_tokens`."""
        match self.num_steps:
            case "n":
                return num_tokens
            case "n/4":
                return max(1, num_tokens // 4)
        return self.num_steps

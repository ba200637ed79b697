"""What every sampler shares: the settings of decoding."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from mntp.guidance import Guidance

Progress = Callable[[int, int], None]  # called with (tokens drawn, tokens in all)


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn from a trained system; never part of what is trained.

    Args:
        num_diffusion_steps: sampling steps of the head for one token (the paper: 100).
        temperature: multiplies the noise injected while sampling (Figure 6b).
        x0_limit: cuts the head's intermediate estimates of a token at +-x0_limit (tokens have unit variance); None,
            as in MAR and the paper, cuts nothing. Models trained for minutes need it.
        guidance: classifier-free guidance.
    """

    num_diffusion_steps: int = 100
    temperature: float = 1.0
    x0_limit: float | None = None
    guidance: Guidance = field(default_factory=Guidance)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from plain values, as a resolved configuration has them."""
        return cls(**{**values, "guidance": Guidance(**values["guidance"])})


@dataclass(frozen=True)
class MaskedDecoding(Decoding):
    """Decoding of AudioMAR.

    Args:
        order: `random` (MAR) or `causal`, left to right (Table 6).
        num_steps: calls of the backbone; None is N / 4, 64 for the paper's 256 tokens.
    """

    order: Literal["random", "causal"] = "random"
    num_steps: int | None = None

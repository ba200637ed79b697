"""What every sampler shares: the settings of decoding."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from mntp.guidance import Guidance
from mntp.heads import HeadSampling

Progress = Callable[[int, int], None]  # called with (tokens drawn, tokens in all)


@dataclass(frozen=True)
class Decoding(HeadSampling):
    """How tokens are drawn from a trained system; never part of what is trained.

    Args:
        num_diffusion_steps, solver, temperature, x0_limit: see HeadSampling.
        guidance: classifier-free guidance.
    """

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

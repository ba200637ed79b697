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

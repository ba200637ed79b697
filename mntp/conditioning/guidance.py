"""Classifier-free guidance: the scale at each position of a clip (paper Eq. 5) and its two conventions (Eq. 4)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """How strongly each token is pulled towards the prompt.

    Args:
        scale: w_0. The paper's default is 7.
        schedule: `annealed` falls from w_0 to 1 along the clip (paper Eq. 5); `constant` stays at w_0; `linear` is
            MAR's, rising with the share of tokens revealed.
        convention: what a scale means. `mar`: eps_u + w (eps_c - eps_u), no guidance at 1; `paper`:
            eps_c + w (eps_c - eps_u) as Eq. 4 is printed, no guidance at 0.
        space: what is extrapolated: the `context` z, the head's `output`, or its `logits`. None takes the first of the
            head's `guidance_spaces`, which is the output of diffusion (the paper) and flow heads and the context of
            others.
    """

    scale: float = 7.0
    schedule: Literal["annealed", "constant", "linear"] = "annealed"
    convention: Literal["mar", "paper"] = "mar"
    space: Literal["context", "output", "logits"] | None = None

    def at(self, num_revealed: int, num_hidden_after: int, num_tokens: int) -> float:
        """Scale in MAR's convention for the tokens revealed next.

        Args:
            num_revealed: tokens known before this step.
            num_hidden_after: tokens still hidden after it.
            num_tokens: tokens of the clip.
        """
        match self.schedule:
            case "constant":
                scale = self.scale
            case "annealed":
                scale = 1 + (self.scale - 1) * (1 - num_revealed / max(1, num_tokens - 1))
            case "linear":
                scale = 1 + (self.scale - 1) * (num_tokens - max(1, num_hidden_after)) / num_tokens
        return scale if self.convention == "mar" else scale + 1

    @property
    def is_off(self) -> bool:
        """True where no position is guided, so that the unconditional branch need not be computed."""
        if self.convention == "mar":
            return self.scale == 1
        return self.scale == 0 and self.schedule == "constant"


def guide_contexts(z: Tensor, z_uncond: Tensor, scale: float) -> Tensor:
    """Extrapolate contexts [M, C] from those of the fake prompt to those of the caption: z_u + w (z_c - z_u).

    Args:
        z: contexts of the caption.
        z_uncond: contexts of the fake prompt.
        scale: w, in MAR's convention; 1 returns `z` itself.
    """
    return z if scale == 1 else z_uncond + scale * (z - z_uncond)

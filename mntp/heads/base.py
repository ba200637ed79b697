"""What a head is: the distribution p(token | z) of one token given its context.

M scored pairs (context, token), C width of a context, D values of a token, S sampling steps.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mntp.heads.settings import HeadSampling


class Head(nn.Module, ABC):
    """A conditional distribution over single tokens that can be trained, measured and sampled.

    Heads return one loss for each pair; the system averages them. They have no random state: training takes a
    generator, measuring and sampling take the noise itself.

    Attributes:
        held_out_name: what `held_out_loss` measures; numbers under different names can't be compared.
        held_out_digits: digits after the decimal point that tables show of it.
        held_out_better: -1 where lower is better, 1 where higher is.
        sampling_type: class of the settings that `sample` takes.
        guidance_spaces: where classifier-free guidance can act, the default first. `context` is the extrapolation of
            z, which the sampler does for every head. `output` (what the network puts out) and `logits` are the head's
            own, in `sample`.
        target: what the head predicts: `values` of tokens [M, D], or `ids` [M] in the tokenizer's vocabulary.
    """

    held_out_name: ClassVar[str]
    held_out_digits: ClassVar[int] = 4
    held_out_better: ClassVar[int] = -1
    sampling_type: ClassVar[type[HeadSampling]] = HeadSampling
    guidance_spaces: ClassVar[tuple[str, ...]] = ("context",)
    target: ClassVar[Literal["values", "ids"]] = "values"

    def __init__(self, token_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.token_dim = token_dim
        self.cond_dim = cond_dim

    @abstractmethod
    def loss(self, z: Tensor, target: Tensor, generator: torch.Generator, step: int = 0) -> Tensor:
        """Training loss of each pair.

        Args:
            z: contexts [M, C].
            target: tokens [M, D] float, or their ids [M] int64, as `self.target` says.
            generator: on the device of z.
            step: optimiser step, from 0, for objectives that change in the course of the training.

        Returns:
            [M] float32 or better.
        """

    @abstractmethod
    def held_out_loss(self, z: Tensor, target: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Loss for comparing models, a pure function of its arguments.

        Args:
            z: contexts [M, C].
            target: as in `loss`.
            level: [M] in [0, 1), chooses the noise level (the caller stratifies it).
            noise: [M, D] standard normal.

        Returns:
            [M] float32; what `held_out_name` says. For a diffusion head the squared error of the predicted noise,
            without the bound term.
        """

    def settings(self, sampling: HeadSampling | dict[str, Any]) -> HeadSampling:
        """Settings of this head's own type, checked.

        Args:
            sampling: such settings, or plain values by name.

        Raises:
            ValueError: the head has no such setting, can't do what it says, or the settings are another head's.
        """
        if isinstance(sampling, dict):
            sampling = self.sampling_type.from_dict(sampling, type(self).__name__)
        if type(sampling) is not self.sampling_type:
            raise ValueError(
                f"decoding.sampling: got {type(sampling).__name__}, but {type(self).__name__} takes "
                f"{self.sampling_type.__name__}"
            )
        self.check(sampling)
        return sampling

    def check(self, sampling: HeadSampling) -> None:
        """Refuse, before anything is trained, what `sample` could not do.

        Raises:
            ValueError: as in `sample`.
        """

    @abstractmethod
    def num_draws(self, sampling: HeadSampling) -> int:
        """Standard normal draws of D values that sampling one token takes."""

    @abstractmethod
    def sample(
        self,
        z: Tensor,
        noise: Tensor,
        sampling: HeadSampling,
        *,
        z_uncond: Tensor | None = None,
        guidance_scale: float | Tensor = 1.0,
    ) -> Tensor:
        """Draw one token for each context.

        Args:
            z: contexts [M, C].
            noise: [M, num_draws(sampling), D] standard normal, in the order of use.
            sampling: settings of type `sampling_type`.
            z_uncond: contexts [M, C] of the fake prompt, for guidance in the head's own space (`output`, `logits`);
                None for heads that are guided in the space of contexts alone.
            guidance_scale: in MAR's convention, 1 is no guidance; only with z_uncond. A tensor [] may change between
                replays of a captured graph.

        Returns:
            [M, D] float32; a head that predicts ids returns their vectors.

        Raises:
            ValueError: a number of steps that the head can't take.
        """


@runtime_checkable
class HeadFactory(Protocol):
    """Builds a head when the system knows token_dim and width; YAML gives only the head's own arguments."""

    def __call__(self, *, token_dim: int, cond_dim: int) -> Head:
        """Build it."""
        ...

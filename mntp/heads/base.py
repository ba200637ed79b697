"""What a head is: the distribution p(token | z) of one token given its context.

M scored pairs (context, token), C width of a context, D values of a token, S sampling steps.
"""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """A conditional distribution over single tokens that can be trained, measured and sampled.

    Heads return one loss for each pair, unreduced; what is averaged is the system's business. They draw nothing on
    their own: randomness comes in as a generator (training) or as the noise itself (measuring, sampling).
    """

    def __init__(self, token_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.token_dim = token_dim
        self.cond_dim = cond_dim

    @abstractmethod
    def loss(self, z: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        """Training loss of tokens x [M, D] under contexts z [M, C] -> [M] float32."""

    @abstractmethod
    def held_out_loss(self, z: Tensor, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Loss for comparing models, a pure function of its arguments.

        Args:
            z: contexts [M, C].
            x: tokens [M, D].
            level: [M] in [0, 1), chooses the noise level (the caller stratifies it).
            noise: [M, D] standard normal.

        Returns:
            [M] float32; for a diffusion head the squared error of the predicted noise, without the bound term.
        """

    @abstractmethod
    def num_draws(self, num_steps: int) -> int:
        """Standard normal draws of D values that sampling one token with `num_steps` steps uses up."""

    @abstractmethod
    def sample(
        self,
        z: Tensor,
        noise: Tensor,
        *,
        num_steps: int,
        z_uncond: Tensor | None = None,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        x0_limit: float | None = None,
    ) -> Tensor:
        """Draw one token for each context.

        Args:
            z: contexts [M, C].
            noise: [M, num_draws(num_steps), D] standard normal, in the order of use.
            num_steps: S.
            z_uncond: contexts [M, C] of the fake prompt, for classifier-free guidance.
            guidance_scale: in MAR's convention, 1 is no guidance; only with z_uncond.
            temperature: multiplies the noise injected while sampling.
            x0_limit: values beyond +-x0_limit in an intermediate estimate of the token are cut; None cuts nothing.

        Returns:
            [M, D] float32.
        """


@runtime_checkable
class HeadFactory(Protocol):
    """Builds a head once the system knows its tokens and width; YAML gives only the head's own arguments."""

    def __call__(self, *, token_dim: int, cond_dim: int) -> Head:
        """Build it."""
        ...

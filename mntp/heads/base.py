"""What a head is: the distribution p(token | z) of one token given its context.

M scored pairs (context, token), C width of a context, D values of a token, S sampling steps.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mntp.registry import did_you_mean


@dataclass(frozen=True)
class HeadSampling:
    """How a head draws one token from a context; never part of what is trained.

    Args:
        num_diffusion_steps: time steps of the solver for one token (the paper: 100); a head that solves nothing
            ignores it.
        solver: one of the head's `solvers`; None takes the first of them.
        temperature: 1 draws from the model. What it scales is said by each head (Figure 6b: the injected noise).
        x0_limit: clamps the head's intermediate estimates of a token to +-x0_limit (tokens have unit variance). With
            None, as in MAR and the paper, nothing is clamped. Ancestral sampling from models that were trained for
            minutes needs it.
        guided_steps: the part of the way from noise (0) to token (1) whose steps are guided; the others cost half
            (limited intervals of guidance: arXiv 2404.07724). MAR and the paper guide all.

    Raises:
        ValueError: fewer than 1 step, a number out of range, or a part that is none.
    """

    num_diffusion_steps: int = 100
    solver: str | None = None
    temperature: float = 1.0
    x0_limit: float | None = None
    guided_steps: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.num_diffusion_steps < 1:
            raise ValueError(f"decoding.num_diffusion_steps: expected at least 1, got {self.num_diffusion_steps}")
        if not self.temperature >= 0:
            raise ValueError(f"decoding.temperature: expected a number from 0 up, got {self.temperature}")
        if self.x0_limit is not None and not self.x0_limit > 0:
            raise ValueError(f"decoding.x0_limit: expected a number above 0, or none, got {self.x0_limit}")
        begin, end = self.guided_steps
        object.__setattr__(self, "guided_steps", (begin, end))  # from a list as well: settings name a captured graph
        if not 0 <= begin <= end <= 1:
            raise ValueError(f"decoding.guided_steps: expected [begin, end] within 0 to 1, got [{begin}, {end}]")

    def is_guided(self, step: int) -> bool:
        """Whether the step with number `step` from the noise, 0 to S - 1, is guided."""
        begin, end = self.guided_steps
        return begin <= (step + 0.5) / self.num_diffusion_steps <= end


class Head(nn.Module, ABC):
    """A conditional distribution over single tokens that can be trained, measured and sampled.

    Heads return one loss for each pair, unreduced; what is averaged is the system's business. They draw nothing on
    their own: randomness comes in as a generator (training) or as the noise itself (measuring, sampling).

    Attributes:
        solvers: names of the ways to draw a token, the default first.
        held_out_name: what `held_out_loss` measures; numbers under different names don't compare.
        held_out_digits: digits after the decimal point that tables show of it.
        held_out_better: -1 where lower is better, 1 where higher is.
    """

    solvers: ClassVar[tuple[str, ...]]
    held_out_name: ClassVar[str]
    held_out_digits: ClassVar[int] = 4
    held_out_better: ClassVar[int] = -1

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
            [M] float32; what `held_out_name` says. For a diffusion head the squared error of the predicted noise,
            without the bound term.
        """

    def solver(self, sampling: HeadSampling) -> str:
        """Name of the solver that `sampling` means.

        Raises:
            ValueError: this head has no such solver.
        """
        name = sampling.solver or self.solvers[0]
        if name not in self.solvers:
            raise ValueError(
                f"{type(self).__name__} has no solver {name!r}; known: {', '.join(self.solvers)}"
                f"{did_you_mean(name, self.solvers)}"
            )
        return name

    def check(self, sampling: HeadSampling) -> None:
        """Refuse, before anything is trained, what `sample` could not do.

        Raises:
            ValueError: as in `sample`.
        """
        self.solver(sampling)

    @abstractmethod
    def num_draws(self, sampling: HeadSampling) -> int:
        """Standard normal draws of D values that sampling one token uses up."""

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
            sampling: solver, steps, temperature.
            z_uncond: contexts [M, C] of the fake prompt, for classifier-free guidance.
            guidance_scale: in MAR's convention, 1 is no guidance; only with z_uncond. As a tensor [] it may change
                under a captured graph.

        Returns:
            [M, D] float32.

        Raises:
            ValueError: an unknown solver, or a number of steps that it can't take.
        """


@runtime_checkable
class HeadFactory(Protocol):
    """Builds a head once the system knows its tokens and width; YAML gives only the head's own arguments."""

    def __call__(self, *, token_dim: int, cond_dim: int) -> Head:
        """Build it."""
        ...

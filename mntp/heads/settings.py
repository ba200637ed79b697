"""How a head draws one token from a context: settings that are never part of what is trained.

Each head names its own class of settings (`Head.sampling_type`); in YAML they stand at `decoding.sampling`, as plain
values.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from mntp.registry import did_you_mean

WHERE = "decoding.sampling"


@dataclass(frozen=True, kw_only=True)
class HeadSampling:
    """Settings that every head has.

    Args:
        temperature: 1 draws from the model, less narrows its distribution. Each head says what it scales (Figure 6b:
            the injected noise).

    Raises:
        ValueError: a value out of range.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or not self.temperature >= 0:
            raise ValueError(f"{WHERE}.temperature: expected a number from 0 up, got {self.temperature!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any], head: str) -> Self:
        """Build from plain values.

        Args:
            values: settings by name; what is not named keeps its default.
            head: name of the head, for the message.

        Raises:
            ValueError: the head has no such setting, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(values.keys() - set(known)):
            raise ValueError(
                f"{WHERE}: '{unknown[0]}' is not a setting of {head}; known: {', '.join(known)}"
                f"{did_you_mean(unknown[0], known)}"
            )
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class SolverSampling(HeadSampling):
    """Settings of a head that goes from noise to a token in steps.

    Args:
        num_steps: steps of the solver for one token (the paper: 100).
        solver: one of `solvers`.
        x0_limit: clips the intermediate estimates of a token to +-x0_limit (tokens have unit variance). None, as in
            MAR and the paper, clips nothing. Models that were trained for minutes need it.
        guided_steps: the part of the way from noise (0) to token (1) whose steps are guided; the others cost half as
            much (arXiv 2404.07724). MAR and the paper guide all.

    Attributes:
        solvers: names of the head's solvers.

    Raises:
        ValueError: an unknown solver, fewer than 1 step, or a value out of range.
    """

    solvers: ClassVar[tuple[str, ...]]

    num_steps: int = 100
    solver: str
    x0_limit: float | None = None
    guided_steps: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise ValueError(f"{WHERE}.num_steps: expected a number of steps from 1 up, got {self.num_steps!r}")
        if self.solver not in self.solvers:
            raise ValueError(
                f"{WHERE}.solver: {self.solver!r} is not a solver of this head; known: {', '.join(self.solvers)}"
                f"{did_you_mean(str(self.solver), self.solvers)}"
            )
        check_x0_limit(self.x0_limit)
        object.__setattr__(self, "guided_steps", tuple(self.guided_steps))  # a list from YAML would not be hashable
        if not (len(self.guided_steps) == 2 and 0 <= self.guided_steps[0] <= self.guided_steps[1] <= 1):
            raise ValueError(
                f"{WHERE}.guided_steps: expected [begin, end] within 0 to 1, got {list(self.guided_steps)}"
            )

    @property
    def guides_every_step(self) -> bool:
        """Whether `guided_steps` covers the whole way."""
        return self.guided_steps == (0.0, 1.0)

    def is_guided(self, step: int) -> bool:
        """Whether the step with number `step` from the noise, 0 to S - 1, is guided."""
        begin, end = self.guided_steps
        return begin <= (step + 0.5) / self.num_steps <= end


def check_x0_limit(limit: float | None) -> None:
    """Refuse a limit that is no positive number.

    Raises:
        ValueError: see above.
    """
    if limit is not None and not (_is_number(limit) and limit > 0):
        raise ValueError(f"{WHERE}.x0_limit: expected a number above 0, or null, got {limit!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

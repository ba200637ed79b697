"""Settings of any head, for tests that run over all of them."""

from dataclasses import fields
from typing import Any

from mntp.heads import Head, HeadSampling, SolverSampling


def sampling_for(head: Head | type[Head], **values: Any) -> HeadSampling:
    """Those of the values that the head has a setting for; None keeps the default."""
    known = {field.name for field in fields(head.sampling_type)}
    return head.sampling_type(**{key: value for key, value in values.items() if key in known and value is not None})


def solvers(head: type[Head]) -> tuple[str | None, ...]:
    """Names of a head's solvers; a single None where it has none."""
    return head.sampling_type.solvers if issubclass(head.sampling_type, SolverSampling) else (None,)

"""Which values of the axes go together, and every combination that does."""

import itertools
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.ablate.matrix.overlay import overlaps
from experiments.ablate.matrix.schema import Axes, Row
from experiments.ablate.matrix.yaml_document import Entry


@dataclass(frozen=True)
class _Exclusion:
    """Values of some axes that are left out together, and why."""

    entry: Entry
    settings: dict[str, str]
    reason: str

    def holds(self, settings: Mapping[str, str]) -> bool:
        return self.settings.items() <= settings.items()


def axes_problem(named: Mapping[str, str], axes: Axes) -> str:
    """Return why the named values make no row, in one line; empty if they do.

    Every axis has one value, named or implied, and no two values write into the same node.
    """
    implied: dict[str, str] = {}
    for axis, value, other, label in _implications(named, axes):
        if other in named or implied.get(other, label) != label:
            return f"{axis}: {value} already means {other}: {label}; leave {other} out"
        implied[other] = label
    if missing := [axis for axis in axes if axis not in {*named, *implied}]:
        return f"no value for {', '.join(missing)}: a row names, or implies, one of every axis"
    return _clash(named, axes)


def _clash(named: Mapping[str, str], axes: Axes) -> str:
    """Which two values write into the same node; empty if none do."""
    written: dict[str, str] = {}
    for axis, value in named.items():
        for change in axes[axis][value].overlay:
            if first := [setter for key, setter in written.items() if overlaps(change.key, key)]:
                return f"{axis}: {value} and {first[0]} both set {change.key}"
            written[change.key] = f"{axis}: {value}"
    return ""


def read_product(entry: Entry, axes: Axes, exclude: Entry | None = None) -> tuple[dict[str, Row], dict[str, int]]:
    """Combine every value of some axes.

    A label that is only implied (`mask token`) counts as a value of its axis, so that each combination is either one
    row or left out for one reason.

    Args:
        entry: the list of axes.
        axes: the declared axes.
        exclude: list of `{axes: {schedule: uniform}, reason: ..}`: what holds all of these values is left out.

    Returns:
        Rows by id (`AudioNTP-zero-C`: the values that aren't implied), and how many combinations were left out for
        which reason.

    Raises:
        ValueError: an unknown axis or value, or an exclusion that leaves nothing out.
    """
    labels = _labels([item.choice(axes) for item in entry.items()], axes)
    exclusions = [_read_exclusion(item, labels) for item in exclude.items()] if exclude else []
    possible: list[dict[str, str]] = []
    excluded: Counter[str] = Counter()
    for values in itertools.product(*labels.values()):
        settings = dict(zip(labels, values, strict=True))
        if problem := _contradiction(settings, axes) or axes_problem(_named(settings, axes), axes):
            excluded[problem] += 1
        else:
            possible.append(settings)
    reasons = _reasons(possible, exclusions)
    excluded.update(filter(None, reasons))
    kept = itertools.compress(possible, map(operator.not_, reasons))
    rows = [_product_row(settings, axes, entry) for settings in kept]
    return {row.id: row for row in rows}, dict(excluded)


def _reasons(possible: Sequence[Mapping[str, str]], exclusions: Sequence[_Exclusion]) -> list[str]:
    """Why each combination is left out; empty for one that is a row."""
    for exclusion in exclusions:
        if not any(map(exclusion.holds, possible)):
            raise exclusion.entry.error("this leaves nothing out: no row of the product has all of these values")
    return [next((each.reason for each in exclusions if each.holds(settings)), "") for settings in possible]


def _product_row(settings: Mapping[str, str], axes: Axes, entry: Entry) -> Row:
    named = _named(settings, axes)
    description = ", ".join(f"{axis.replace('_', ' ')}: {label}" for axis, label in settings.items())
    return Row("-".join(named.values()), entry.where, named, (), description, {})


def _labels(chosen: Sequence[str], axes: Axes) -> dict[str, list[str]]:
    """The labels of the chosen axes: their values, and what values of any axis imply."""
    labels = {axis: list(axes[axis]) for axis in chosen}
    implied = (value.implies.items() for values in axes.values() for value in values.values())
    for axis, label in itertools.chain.from_iterable(implied):
        if axis in labels and label not in labels[axis]:
            labels[axis].append(label)
    return labels


def _read_exclusion(entry: Entry, labels: Mapping[str, Sequence[str]]) -> _Exclusion:
    fields = entry.fields(keys := ("axes", "reason"), required=keys)
    settings = {axis: child.choice(labels[axis]) for axis, child in fields["axes"].fields(labels).items()}
    if not settings:
        raise fields["axes"].error("no value is named: this would leave out every combination")
    return _Exclusion(entry, settings, fields["reason"].text())


def _named(settings: Mapping[str, str], axes: Axes) -> dict[str, str]:
    """The values of a combination that none of the others implies."""
    implied = {(other, label) for _, _, other, label in _implications(settings, axes)}
    return {axis: value for axis, value in settings.items() if (axis, value) not in implied}


def _contradiction(settings: Mapping[str, str], axes: Axes) -> str:
    for axis, value, other, label in _implications(settings, axes):
        if settings.get(other, label) != label:
            return f"{axis}: {value} already means {other}: {label}"
    for axis, value in _named(settings, axes).items():
        if value not in axes[axis]:
            return f"{axis}: {value} is only what {_meaning(axis, value, axes)} means"
    return ""


def _implications(settings: Mapping[str, str], axes: Axes) -> Sequence[tuple[str, str, str, str]]:
    return [
        (axis, value, other, label)
        for axis, value in settings.items()
        if value in axes[axis]
        for other, label in axes[axis][value].implies.items()
    ]


def _meaning(axis: str, label: str, axes: Axes) -> str:
    """The values that imply a label, as `system: AudioMAR`."""
    found = [
        f"{other}: {value}"
        for other, values in axes.items()
        for value, declared in values.items()
        if declared.implies.get(axis) == label
    ]
    return " or ".join(found)

"""Tables in Markdown: ours, differences, notes, and the paper's values."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from experiments.ablate.results.table import differences_of, has_intervals, lines_of, without_repetitions

NOT_COMPARABLE = (
    "The paper's values were measured at another scale, on another corpus and by other judges: "
    "they are not comparable with the ones above; only the order of rows may be."
)
COMPARABLE = "In brackets: ours less the paper's value."
BIASED = (
    "± is half of the 95 % interval over clips. fd_judge and fad_jackknife are corrected for the bias of few clips; "
    "other Frechet distances and inception scores are biased at small numbers of clips: compare rows of equal numbers "
    "only."
)
DIFFERENCES = (
    "In brackets the 95 % interval of the mean difference on the same clips. Not separable: the interval holds zero, a "
    "permutation test over clips doesn't reject equal scores at 5 %, or the sign changes between training seeds. None "
    "of this resamples training seeds: one seed says nothing about how another would end."
)


def table_markdown(table: pd.DataFrame) -> str:
    """Return one table: ours (best trained row in bold), differences, notes, the paper's values apart or beside ours.

    Ours and the paper's values are compared only where scale and judge are the paper's: else they aren't the same
    quantities.
    """
    about, ours = next(lines_of(table))
    several_seeds = "seed" in about.words
    lines = [f"# {about.title}", "", f"## Ours, scale `{about.scale}`, judge `{about.judge}`", ""]
    lines += _head([*about.words, *(item.heading for item in ours)])
    lines += [_line([*cell.words.values(), *map(_value, ours)]) for cell, ours in lines_of(table)]
    if has_intervals(table):
        lines += ["", BIASED]
    rows = table.drop_duplicates("row")
    lines += ["", *(f"- {row.row}: {_escape(row.description)}" for row in rows.itertuples())]
    lines += _over_seeds(table) if several_seeds else []
    lines += _differences(table)
    cells = table.drop_duplicates(["row", "seed"])
    notes = [f"- {_name(cell, several_seeds)}: {_escape(cell.notes)}" for cell in cells.itertuples() if cell.notes]
    lines += ["", "Notes:", "", *notes] if notes else []
    return "\n".join([*lines, *_published(table, several_seeds)]) + "\n"


def _value(item: Any) -> str:
    """As `2.50 ± 0.20`, in bold for the best."""
    text = f"{item.text} ± {item.half_width}" if item.half_width else item.text
    return f"**{text}**" if item.best else text


def _name(cell: Any, with_seed: bool) -> str:
    return f"{cell.row} (seed {cell.seed})" if with_seed else cell.row


def _published(table: pd.DataFrame, several_seeds: bool) -> Iterator[str]:
    """The paper's values; with ours less the paper's, seed by seed, where they are comparable."""
    about, paper = next(lines_of(table, "printed"))
    yield from ("", "## Published", "", COMPARABLE if about.comparable else NOT_COMPARABLE, "")
    yield from _head(["row", *(item.metric for item in paper)])
    by_seed = several_seeds and about.comparable
    for cell, paper in lines_of(table if by_seed else without_repetitions(table), "printed"):
        if any(item.published for item in paper):
            yield _line([_name(cell, by_seed), *map(_paper_value, paper)])


def _paper_value(item: Any) -> str:
    """As `14.81 (-0.31)`, with ours less the paper's in brackets."""
    return (item.published or "not given") + (f" ({item.gap})" if item.gap else "")


def _over_seeds(table: pd.DataFrame) -> Iterator[str]:
    """Mean and standard deviation over training seeds, and how many there are."""
    rows: dict[str, list[list[Any]]] = {}
    for cell, ours in lines_of(table):
        if not cell.reference:
            rows.setdefault(cell.row, []).append(ours)
    yield from ("", "## Over training seeds: mean, standard deviation (n - 1), n", "")
    yield from _head(["row", *(item.metric for item in next(lines_of(table))[1])])
    for row, seeds in rows.items():
        yield _line([row, *map(_spread, zip(*seeds, strict=True))])


def _spread(seeds: Sequence[Any]) -> str:
    """As `2.500, 0.500, 3`, of one metric."""
    values, digits = [item.value for item in seeds if item.value is not None], seeds[0].digits
    if not values:
        return "no value"
    deviation = f", {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}, {len(values)}"


def _differences(table: pd.DataFrame) -> Iterator[str]:
    """The table of differences; nothing where there is none."""
    wide = differences_of(table)
    if len(wide):
        baseline = table.baseline.dropna().iloc[0]
        yield from ("", f"## Differences from row {baseline}, on the same clips", "")
        yield from _head(["row", *wide.columns])
        yield from (_line(line) for line in wide.itertuples())
        yield from ("", DIFFERENCES)


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    """One line, and no character that ends a table's cell or starts HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

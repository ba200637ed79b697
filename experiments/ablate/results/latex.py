"""Tables in LaTeX, as in the paper: booktabs rules, best in bold, the paper's values beside ours or apart.

The text needs the packages `booktabs` and `graphicx`; a wide table is scaled to the line.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.ablate.results.table import has_intervals, lines_of, without_repetitions
from experiments.runs.state import DONE

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
}
APART = "The paper's values: another scale, another corpus, other judges; not comparable with ours."


def escape(text: str) -> str:
    """Return text, on one line, that LaTeX prints as it is."""
    return "".join(_ESCAPES.get(character, character) for character in " ".join(text.split()))


def table_latex(table: pd.DataFrame) -> str:
    """Return a table as one LaTeX float: ours with intervals, then the paper's values.

    Where scale and judge are the paper's, a row has `ours`, `paper` and their difference for each metric; else the
    paper's values stand in a tabular of their own.
    """
    about, _ = next(lines_of(table))
    caption = f"{about.title} (scale {about.scale}, judge {about.judge})"
    notes = ["After ±: half of the 95 % interval over clips."] if has_intervals(table) else []
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape('. '.join((caption, *notes)))}}}"]
    lines += _scaled(_beside(table) if about.comparable else _ours(table))
    if not about.comparable and (table.published != "").any():
        lines += [r"\par\medskip", rf"{{\footnotesize {escape(APART)}}}", r"\par\smallskip", *_scaled(_apart(table))]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _ours(table: pd.DataFrame) -> list[str]:
    about, ours = next(lines_of(table))
    head = [*map(_word, about.words), *(_word(item.heading) for item in ours)]
    body = [_row([*map(escape, cell.words.values()), *map(_value, ours)]) for cell, ours in lines_of(table)]
    return _tabular("l" * len(about.words) + "r" * len(ours), [_row(head)], body)


def _beside(table: pd.DataFrame) -> list[str]:
    """Ours, the paper's and the difference under one heading for each metric that the paper has."""
    about, ours = next(lines_of(table))
    groups, rules, columns, second = [], [], "l" * len(about.words), [*map(_word, about.words)]
    for item in ours:
        place = len(columns) + 1
        if item.printed:
            groups.append(rf"\multicolumn{{3}}{{c}}{{{_word(item.heading)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + 2}}}")
            columns, second = columns + "rrr", [*second, "ours", "paper", "diff."]
        else:
            groups.append("")
            columns, second = columns + "r", [*second, _word(item.heading)]
    head = [_row([*[""] * len(about.words), *groups]), " ".join(rules), _row(second)]
    body = []
    for cell, ours in lines_of(table):
        values = [[_value(item), *([escape(item.published), _gap(item)] if item.printed else [])] for item in ours]
        body.append(_row([*map(escape, cell.words.values()), *itertools.chain(*values)]))
    return _tabular(columns, head, body)


def _apart(table: pd.DataFrame) -> list[str]:
    lines = [
        (cell, paper)
        for cell, paper in lines_of(without_repetitions(table), "printed")
        if any(item.published for item in paper)
    ]
    head = ["row", *(_word(item.heading) for item in lines[0][1])]
    body = [_row([escape(cell.row), *(escape(item.published or "--") for item in paper)]) for cell, paper in lines]
    return _tabular("l" + "r" * (len(head) - 1), [_row(head)], body)


def _value(item: Any) -> str:
    if item.state != DONE:
        return rf"\emph{{{escape(item.text)}}}"
    text = rf"\textbf{{{escape(item.text)}}}" if item.best else escape(item.text)
    return rf"{text} {{\scriptsize $\pm$ {item.half_width}}}" if item.half_width else text


def _gap(item: Any) -> str:
    return f"${item.gap}$" if item.gap else ""


def _word(name: str) -> str:
    return escape(name.replace("_", " "))


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tabular(columns: str, head: Sequence[str], body: Sequence[str]) -> list[str]:
    rules = (r"\toprule", r"\midrule", r"\bottomrule")
    return [rf"\begin{{tabular}}{{{columns}}}", rules[0], *head, rules[1], *body, rules[2], r"\end{tabular}"]


def _scaled(tabular: Sequence[str]) -> list[str]:
    return [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", *tabular, "}"]

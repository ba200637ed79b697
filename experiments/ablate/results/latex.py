"""Tables in LaTeX, in the paper's shape: booktabs rules, best in bold, the paper's values beside ours or apart.

The text needs the packages `booktabs` and `graphicx`; a wide table is scaled to the line.
"""

from collections.abc import Sequence

from experiments.ablate.results.table import Line, ShownTable, Value, once
from experiments.runs.state import DONE
from experiments.scoring.metrics import METRICS

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
_ARROWS = {-1: r" $\downarrow$", 0: "", 1: r" $\uparrow$"}
APART = "The paper's values: another scale, another corpus, other judges; not comparable with ours."


def escape(text: str) -> str:
    """Return text, on one line, that LaTeX prints as it is."""
    return "".join(_ESCAPES.get(character, character) for character in " ".join(text.split()))


def table_latex(shown: ShownTable) -> str:
    """Return a table as one LaTeX float: ours with intervals, then the paper's values.

    Where scale and judge are the paper's, a row has `ours`, `paper` and their difference for each metric; else the
    paper's values stand in a tabular of their own.
    """
    caption = f"{shown.title} (scale {shown.scale}, judge {shown.judge})"
    notes = ["Half of the 95 % interval over clips behind ±."] if shown.has_intervals else []
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape('. '.join((caption, *notes)))}}}"]
    lines += _scaled(_comparable(shown) if shown.comparable else _ours(shown))
    if not shown.comparable and any(line.result.cell.published for line in shown.lines):
        lines += [r"\par\medskip", rf"{{\footnotesize {escape(APART)}}}", r"\par\smallskip", *_scaled(_apart(shown))]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _ours(shown: ShownTable) -> list[str]:
    header = [*map(_word, shown.words), *map(_heading, shown.metrics)]
    body = [_row([*map(escape, line.words), *map(_value, line.values)]) for line in shown.lines]
    return _tabular("l" * len(shown.words) + "r" * len(shown.metrics), [_row(header)], body)


def _comparable(shown: ShownTable) -> list[str]:
    """Ours, the paper's and the difference under one heading for each metric that the paper has."""
    groups, rules, columns, second = [], [], "l" * len(shown.words), [*map(_word, shown.words)]
    for metric in shown.metrics:
        place = len(columns) + 1
        if metric in shown.published:
            groups.append(rf"\multicolumn{{3}}{{c}}{{{_heading(metric)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + 2}}}")
            columns, second = columns + "rrr", [*second, "ours", "paper", "diff."]
        else:
            groups.append("")
            columns, second = columns + "r", [*second, _heading(metric)]
    head = [_row([*[""] * len(shown.words), *groups]), " ".join(rules), _row(second)]
    return _tabular(columns, head, [_row(_beside(shown, line)) for line in shown.lines])


def _beside(shown: ShownTable, line: Line) -> list[str]:
    cells = [*map(escape, line.words)]
    for metric, value in zip(shown.metrics, line.values, strict=True):
        cells.append(_value(value))
        if metric in shown.published:
            gap = shown.gap(line.result, metric)
            cells += [escape(line.result.cell.published.get(metric, "")), f"${gap}$" if gap else ""]
    return cells


def _apart(shown: ShownTable) -> list[str]:
    body = [
        _row([escape(result.cell.row), *(escape(result.cell.published.get(name, "--")) for name in shown.published)])
        for result in once([line.result for line in shown.lines])
        if result.cell.published
    ]
    head = [_row(["row", *(_heading(name) if name in METRICS else _word(name) for name in shown.published)])]
    return _tabular("l" + "r" * len(shown.published), head, body)


def _value(value: Value) -> str:
    if value.state != DONE:
        return rf"\emph{{{escape(value.text)}}}"
    text = rf"\textbf{{{escape(value.text)}}}" if value.best else escape(value.text)
    return rf"{text} {{\scriptsize $\pm$ {value.half_width}}}" if value.half_width else text


def _word(name: str) -> str:
    return escape(name.replace("_", " "))


def _heading(metric: str) -> str:
    return _word(metric) + _ARROWS[METRICS[metric].better]


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tabular(columns: str, head: Sequence[str], body: Sequence[str]) -> list[str]:
    rules = (r"\toprule", r"\midrule", r"\bottomrule")
    return [rf"\begin{{tabular}}{{{columns}}}", rules[0], *head, rules[1], *body, rules[2], r"\end{tabular}"]


def _scaled(tabular: Sequence[str]) -> list[str]:
    return [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", *tabular, "}"]

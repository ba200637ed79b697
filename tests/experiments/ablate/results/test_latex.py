"""LaTeX tables: whole, escaped, and the paper's values beside ours only where they are comparable."""

import re
from pathlib import Path

import pandas as pd
import pytest

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import PlannedTable
from experiments.ablate.results.latex import escape, table_latex
from experiments.ablate.results.table import Result, results_frame
from tests.experiments.ablate.results_support import cell, finish, plan_of, scores

PAPER = {"fd": "14.81", "kl": "1.16", "head_params": "9.84M"}
NASTY = r"50 % of {a_b} & \textbf # $x^2$ ~ <i> | " "end" ""


def shown(folder: Path, scale: str = "micro", judge: str = "embedded") -> pd.DataFrame:
    cells = [
        cell(folder, "t", "ref_1", reference=True, source="ground_truth", scale=scale),
        cell(folder, "t", "G", published=PAPER, scale=scale, settings={"system": NASTY, "schedule": "C"}),
        cell(folder, "t", "I", scale=scale),
        cell(folder, "t", "K", scale=scale),
    ]
    names = {"fd_judge": "fd", "kl_judge": "kl"} if judge == "audioldm" else {}
    for item, fd in zip(cells[:3], (0.0, 14.3, 16.0), strict=True):
        metrics = {names.get(name, name): value for name, value in scores(fd, 0.25).items()}
        metrics["intervals"] = {names.get("fd_judge", "fd_judge"): [fd - 1, fd + 2]}
        finish(item, metrics, gpu_seconds=5400.0)
    plan = plan_of(*cells, judge=judge, t=PlannedTable("Title_1"))
    return results_frame(plan, [Result(item, cell_state(item)) for item in cells])


def check_structure(text: str) -> list[list[str]]:
    """Environments and braces close in order, every row of a tabular has its columns; returns all rows' cells."""
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text.replace("\\\\", "")):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0 and len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    rows = []
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S):
        for line in (line for line in body.splitlines() if line.endswith(r"\\")):
            cells = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d)\}", line))
            assert len(cells) + spans == len(columns), line
            rows.append([part.strip() for part in cells])
    return rows


def test_at_another_scale_the_papers_values_stand_apart(tmp_path: Path) -> None:
    text = table_latex(shown(tmp_path))
    rows = {row[0]: row for row in check_structure(text)}  # the paper's row of G comes last
    assert rows["G"] == ["G", "14.81", "--", "1.16", "--", "--", "9.84M"]
    assert text.count(r"\begin{tabular}") == 2 and "not comparable" in text and "-0.51" not in text
    ours = next(row for row in check_structure(text) if row[0] == "G")
    assert ours[4] == r"\textbf{14.300} {\scriptsize $\pm$ 1.500}" and ours[-1] == "1.50", "GPU-hours"
    assert ours[3] == "64" and rows["I"][4] == r"16.000 {\scriptsize $\pm$ 1.500}"
    assert rows[r"ref\_1"][-1] == "n/a" and set(rows["K"][4:]) == {r"\emph{not run}"}
    assert r"\caption{Title\_1 (scale micro" in text


@pytest.mark.parametrize(("scale", "judge"), [("base", "embedded"), ("micro", "audioldm"), ("large", "audioldm")])
def test_neither_scale_nor_judge_alone_makes_them_comparable(tmp_path: Path, scale: str, judge: str) -> None:
    table = shown(tmp_path, scale, judge)
    assert not table.comparable.any() and not table.gap.any()
    assert "diff." not in table_latex(table)


def test_at_the_papers_scale_and_judge_the_difference_stands_beside_both(tmp_path: Path) -> None:
    text = table_latex(shown(tmp_path, "base", "audioldm"))
    rows = check_structure(text)
    assert text.count(r"\begin{tabular}") == 1 and rows[1].count("diff.") == 5
    g = next(row for row in rows if row[0] == "G")
    assert g[4:7] == [r"\textbf{14.30} {\scriptsize $\pm$ 1.50}", "14.81", "$-0.51$"]
    assert g[g.index("1.16") + 1] == "$-0.66$"
    other = next(row for row in rows if row[0] == "I")
    assert other[5:7] == ["", ""]


def test_text_is_printed_as_it_is(tmp_path: Path) -> None:
    text = table_latex(shown(tmp_path))
    assert escape(NASTY) in text
    assert escape("a\nb") == "a b" and escape(r"\{%") == r"\textbackslash{}\{\%"
    for character in "&%$#_{}":
        assert escape(character) == f"\\{character}"

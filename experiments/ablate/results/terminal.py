"""Tables in the terminal."""

import pandas as pd
from rich.table import Table
from rich.text import Text

from experiments.ablate.results.table import lines_of
from experiments.runs.state import DONE, STYLES


def table_rich(table: pd.DataFrame) -> Table:
    """Return one table for the terminal: ours only, the best trained row in bold."""
    about, ours = next(lines_of(table))
    shown = Table(title=f"{about.title} (ours, scale {about.scale}, judge {about.judge})", title_justify="left")
    for name in ("row", "seed", *about.settings):
        shown.add_column(name.replace("_", " "), overflow="fold")
    for item in ours:
        shown.add_column(item.heading.replace("_", " "), justify="right", overflow="fold")
    for cell, ours in lines_of(table):
        style = "" if cell.state == DONE else STYLES[cell.state]
        values = (Text(item.text, style="bold" if item.best else style) for item in ours)
        shown.add_row(*map(Text, (cell.row, str(cell.seed), *cell.settings.values())), *values)
    return shown

"""The paper's values, as printed (1.70 stays 1.70), from `experiments/paper/*.csv`."""

import csv
from pathlib import Path

from experiments.ablate.matrix.yaml_document import Entry, not_known

PAPER = Path(__file__).resolve().parents[2] / "paper"
PAPER_METRICS = ("fd", "fad", "kl", "is", "clap")
PAPER_COSTS = ("head_params", "head_share", "seconds_per_10s_clip")  # of Table 4


def read_published(entry: Entry) -> dict[str, str]:
    """Return the published values of the row that `{table: 4, row: 3}` names; a file's first column is the row's id.

    Raises:
        ValueError: there is no such table or row, or the table's first column doesn't tell its rows apart.
    """
    fields = entry.fields(keys := ("table", "row"), required=keys)
    path = PAPER / f"table{fields['table'].integer()}.csv"
    if not path.is_file():
        known = sorted(file.stem for file in PAPER.glob("table*.csv"))
        raise fields["table"].error(f"published values: {not_known(path.stem, known)}")
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = {next(iter(line.values())): line for line in lines}
    if len(rows) < len(lines):
        raise fields["table"].error(f"published values: the first column of {path.name} doesn't tell its rows apart")
    row = rows[fields["row"].choice(rows)]
    return {metric: row[metric] for metric in (*PAPER_METRICS, *PAPER_COSTS) if row.get(metric)}

"""Which rows are asked for, and what they need."""

from experiments.ablate.matrix.schema import Matrix, RowKey, row_label
from mntp.registry import did_you_mean


def select_rows(matrix: Matrix, rows: str) -> set[RowKey]:
    """Return the (table, row id) pairs to run: those that are asked for, and the rows that these need.

    Args:
        matrix: the checked matrix.
        rows: "" for the default rows with their tables' references; "all" for every row of every declared table; or a
            list of rows ("3A", "8B", "figure6a:3"), references ("untrained", in the tables with default rows) and
            whole tables with their references ("table4", "factorial").

    Raises:
        ValueError: an unknown word.
    """
    known = _words(matrix)
    selected: set[RowKey] = set()
    waiting = [key for word in _asked(matrix, rows) for key in _named(word, matrix, known)]
    while waiting:
        key = waiting.pop()
        if key not in selected:
            selected.add(key)
            waiting += matrix.row(key).needs
    return selected


def _asked(matrix: Matrix, rows: str) -> list[str]:
    if rows == "all":
        return [table.name for table in matrix.tables.values() if not table.product]
    if rows == "":
        default = [row_label(table.name, row) for table in matrix.tables.values() for row in table.default_rows]
        return [*default, *matrix.reference]
    return rows.split(",")


def _words(matrix: Matrix) -> dict[str, list[RowKey]]:
    """Everything that can be asked for by name, written without blanks."""
    words: dict[str, list[RowKey]] = {}
    for table in matrix.tables.values():
        words[table.name] = [(table.name, row) for row in (*matrix.reference, *table.rows)]
        words |= {_plain(row_label(table.name, row)): [(table.name, row)] for row in table.rows}
    compared = [table.name for table in matrix.tables.values() if table.default_rows]
    return words | {row: [(table, row) for table in compared] for row in matrix.reference}


def _named(word: str, matrix: Matrix, known: dict[str, list[RowKey]]) -> list[RowKey]:
    if _plain(word) not in known:
        names = ", ".join((*matrix.tables, *matrix.reference))
        raise ValueError(
            f"row {word.strip()!r} is not known here; known: all, {names}, and rows as in 3A or figure6a:3"
            f"{did_you_mean(_plain(word), known)}"
        )
    return known[_plain(word)]


def _plain(text: str) -> str:
    return "".join(text.split())

"""Rows and tables of a matrix file, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.ablate.matrix.overlay import overlaps, read_overlay
from experiments.ablate.matrix.product import axes_problem, read_product
from experiments.ablate.matrix.published import read_published
from experiments.ablate.matrix.schema import SOURCES, Axes, Row, RowKey, Table
from experiments.ablate.matrix.yaml_document import Entry
from experiments.scoring.metrics import EXTRA_METRICS


@dataclass(frozen=True)
class RowReader:
    """Reads the tables of one file from the top down.

    Attributes:
        axes: the declared axes.
        names: every row's id by table, also of the tables that aren't read yet.
        read: the rows so far.
    """

    axes: Axes
    names: Mapping[str, list[str]]
    read: dict[RowKey, Row] = field(default_factory=dict)

    def table(self, name: str, entry: Entry) -> Table:
        """Read a table: the product of axes, or rows that are declared one by one."""
        if "product" in entry.mapping():
            return self._product(name, entry)
        fields = entry.fields(
            ("title", "like", "decodes", "columns", "baseline", "default_rows", "rows"),
            required=["title", "baseline", "default_rows", "rows"],
        )
        decodes = "decodes" in fields and fields["decodes"].boolean()
        for row, child in fields["rows"].mapping().items():
            self.read[name, row] = self._row(row, child, fields.get("like"), decodes)
        return Table(
            name=name,
            title=fields["title"].text(),
            rows={row: self.read[name, row] for row in self.names[name]},
            default_rows=tuple(item.choice(self.names[name]) for item in fields["default_rows"].items()),
            baseline=fields["baseline"].choice(self.names[name]),
            columns=tuple(item.choice(EXTRA_METRICS) for item in fields["columns"].items())
            if "columns" in fields
            else (),
        )

    def _product(self, name: str, entry: Entry) -> Table:
        """Every combination of some axes, but those that it excludes, and the rows that it includes besides."""
        fields = entry.fields(("title", "product", "exclude", "include"), required=["title", "product"])
        rows, excluded = read_product(fields["product"], self.axes, fields.get("exclude"))
        for row, child in fields["include"].mapping().items() if "include" in fields else ():
            if row in rows:
                raise child.error("a combination of the product has this name")
            rows[row] = self.read[name, row] = self._row(row, child, None, decodes=False)
        return Table(name, fields["title"].text(), rows, product=True, excluded=excluded)

    def reference(self, entry: Entry) -> dict[str, Row]:
        """Read the reference rows: scorings of one run, the model of the row `like` with their common overlay."""
        fields = entry.fields(("like", "set", "rows"), required=["like", "rows"])
        model = self.read[self._above(fields["like"])]
        rows = {}
        for name, child in fields["rows"].mapping().items():
            own = child.fields(keys := ("source", "description"), required=keys)
            if clash := [table for table, names in self.names.items() if name in names]:
                raise child.error(f"{clash[0]} has a row of this name")
            rows[name] = Row(
                id=name,
                where=child.where,
                axes=model.axes,
                overlay=(*model.overlay, *read_overlay(fields)),
                description=own["description"].text(),
                published={},
                init_from=model.init_from,
                source=own["source"].choice(SOURCES),
                reference=True,
            )
        return rows

    def _row(self, row: str, entry: Entry, tables_like: Entry | None, decodes: bool) -> Row:
        known = ("axes", "like", "set", "remove", "init_from", "description", "paper")
        fields = entry.fields(known, required=["description"])
        if {"axes", "like"} <= fields.keys():
            raise fields["axes"].error("a row has either axes or a row that it is like")
        like = None if "axes" in fields else fields.get("like", tables_like)
        if like is not None:
            key = self._above(like)
            read = _like(self.read[key], self._own(row, entry, fields), key if decodes else None)
        elif decodes:
            raise entry.error("in a table that decodes, a row is `like` the row whose runs it decodes")
        elif "axes" in fields:
            read = self._own(row, entry, fields)
        else:
            raise entry.error("the key 'axes' is missing, or 'like': a row that it shares all axes with")
        if read.init_from and any(overlaps(change.key, "init") for change in read_overlay(fields)):
            raise entry.error("it starts from a trained run (init_from), and sets `init` as well")
        return read

    def _own(self, row: str, entry: Entry, fields: Mapping[str, Entry]) -> Row:
        """What a row says itself."""
        return Row(
            id=row,
            where=entry.where,
            axes=self._axes(fields["axes"]) if "axes" in fields else {},
            overlay=read_overlay(fields),
            description=fields["description"].text(),
            published=read_published(fields["paper"]) if "paper" in fields else {},
            init_from=self._declared(fields["init_from"]) if "init_from" in fields else None,
        )

    def _axes(self, entry: Entry) -> dict[str, str]:
        given = {axis: child.choice(self.axes[axis]) for axis, child in entry.fields(self.axes).items()}
        named = {axis: given[axis] for axis in self.axes if axis in given}  # two spellings of a row are one
        if problem := axes_problem(named, self.axes):
            raise entry.error(problem)
        return named

    def _declared(self, entry: Entry) -> RowKey:
        """The row that `{table: .., row: ..}` names, anywhere in the file."""
        fields = entry.fields(keys := ("table", "row"), required=keys)
        table = fields["table"].choice(self.names)
        return table, fields["row"].choice(self.names[table])

    def _above(self, entry: Entry) -> RowKey:
        key = self._declared(entry)
        if key not in self.read:
            raise entry.error(f"{key[0]} row {key[1]} is declared below; a row is like one above it")
        return key


def _like(model: Row, row: Row, decodes_from: RowKey | None) -> Row:
    """The row with the axes of its model, and the model's changes before its own."""
    return replace(
        row,
        axes=model.axes,
        overlay=(*model.overlay, *row.overlay),
        init_from=row.init_from or model.init_from,
        decodes_from=decodes_from,
    )

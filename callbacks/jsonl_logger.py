"""Metrics as one JSON object a line, for machines to read."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from mntp.io.json_lines import append_line, drop_lines_from, finite_or_none


class JSONLLogger(Logger):
    """Appends `{"step": ..., name: value, ...}` lines to a file; a value that is not finite is null.

    A resumed run first drops the lines at and after the step that it goes on from, so that its file ends up equal to
    an uninterrupted run's.

    Args:
        path: the file, usually `metrics.jsonl` in a run's folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._started = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def version(self) -> str:
        """None of its own."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Not kept here: a run's `config.yaml` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one line."""
        if not self._started:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            drop_lines_from(self.path, step or 0)
            self._started = True
        values = {name: finite_or_none(float(value)) for name, value in metrics.items() if name != "epoch"}
        append_line(self.path, {"step": step, **values})

"""Metrics as one JSON object a line, for machines to read."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from mntp.files import atomic_write


class JSONLLogger(Logger):
    """Appends `{"step": ..., name: value, ...}` lines to a file.

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
            self._drop_from(step or 0)
            self._started = True
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def _drop_from(self, step: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        whole = [line for line in lines if line.endswith("}")]  # a killed process may leave half a line
        with atomic_write(self.path) as file:
            file.writelines(line + "\n" for line in whole if json.loads(line)["step"] < step)

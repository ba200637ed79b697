"""A job array on disk: what each of its tasks runs, and what the tasks say of themselves in the run folders.

results/slurm/<name>.json          the tasks, written before the array is submitted
runs/<run>/submitted.json          which task of which array a run was given to, written by whoever submitted it
runs/<run>/attempt.json            which attempt the run is at and where, written by the task
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.options import JudgeOptions
from experiments.runs.state import eval_folder
from mntp.io.json_lines import read_json, write_json

SUBMITTED, ATTEMPT = "submitted.json", "attempt.json"


@dataclass(frozen=True)
class RunTask:
    """One run, with all of its scorings that aren't done.

    Attributes:
        run_dir: the run's folder.
        protocols: hashes of the scorings, in order.
        labels: the cells' labels.
        needs: folders of other runs that must be trained before, by label.
        nodes: nodes.
        devices: devices per node, and processes.
    """

    run_dir: Path
    protocols: tuple[str, ...]
    labels: tuple[str, ...]
    needs: Mapping[str, Path]
    nodes: int
    devices: int

    @property
    def label(self) -> str:
        """The labels of all cells that this task answers: `3G = 8C`."""
        return " = ".join(self.labels)

    @property
    def shape(self) -> str:
        """Nodes x devices per node: `5x8`."""
        return f"{self.nodes}x{self.devices}"

    def unfinished(self) -> list[Path]:
        """Folders of the scorings that aren't done."""
        folders = [eval_folder(self.run_dir, protocol) for protocol in self.protocols]
        return [folder for folder in folders if not (folder / "metrics.json").is_file()]


@dataclass(frozen=True)
class TaskArray:
    """The tasks of one job array.

    Attributes:
        tasks: by their index in the array.
        options: where judges and public checkpoints lie.
        max_restarts: how often a task is put into the queue again.
    """

    tasks: tuple[RunTask, ...]
    options: JudgeOptions
    max_restarts: int

    def write(self, path: Path) -> None:
        """Write the array, whole or not at all."""
        content = dataclasses.asdict(self)
        content |= content.pop("options")
        write_json(path, json.loads(json.dumps(content, default=str)))

    @classmethod
    def read(cls, path: Path) -> "TaskArray":
        """Read what `write` wrote.

        Raises:
            ValueError: it isn't such a file.
            OSError: it can't be read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            tasks = tuple(
                RunTask(
                    Path(task["run_dir"]),
                    tuple(task["protocols"]),
                    tuple(task["labels"]),
                    {label: Path(folder) for label, folder in task["needs"].items()},
                    task["nodes"],
                    task["devices"],
                )
                for task in content["tasks"]
            )
            options = JudgeOptions(Path(content["judges"]), Path(content["weights"]))
            return cls(tasks, options, content["max_restarts"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a list of tasks ({error}); submit again") from None


def read_note(run_dir: Path, name: str) -> dict[str, Any]:
    """Return the `SUBMITTED` or `ATTEMPT` of a run; {} where there is none, or a damaged one."""
    with contextlib.suppress(ValueError):
        return read_json(run_dir / name)
    return {}


def write_note(run_dir: Path, name: str, **content: Any) -> None:
    """Write the `SUBMITTED` or `ATTEMPT` of a run, with the time."""
    write_json(run_dir / name, {**content, "time": time.time()})


def task_log(array: Path, job: str) -> Path:
    """Return where a task of the array `<name>.json` logs; `job` is `<array id>_<index>`."""
    return array.parent / "logs" / f"{array.stem}-{job}.log"

"""A job array on disk: what each of its tasks runs, and what the tasks say of themselves in the run folders.

results/slurm/<name>.json          the tasks, written before the array is submitted
runs/<run>/submitted.json          which task of which array a run was given to, written by whoever submitted it
runs/<run>/attempt.json            which attempt the run is at and where, written by the task
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.runs.state import eval_folder
from mntp.io.json_lines import write_json

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
        judges: folder of cached judges.
        weights: folder of public checkpoints.
        max_restarts: how often a task is put into the queue again.
    """

    tasks: tuple[RunTask, ...]
    judges: Path
    weights: Path
    max_restarts: int

    def write(self, path: Path) -> None:
        """Write the array, whole or not at all."""
        write_json(path, json.loads(json.dumps(dataclasses.asdict(self), default=str)))

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
            return cls(tasks, Path(content["judges"]), Path(content["weights"]), content["max_restarts"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a list of tasks ({error}); submit again") from None


def task_log(array: Path, job: str) -> Path:
    """Return where a task of the array `<name>.json` logs; `job` is `<array id>_<index>`."""
    return array.parent / "logs" / f"{array.stem}-{job}.log"

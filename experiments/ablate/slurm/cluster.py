"""A cluster as `experiments/clusters/NAME.yaml` describes it: what its job scripts say, and what fits on it."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from experiments.ablate.matrix.yaml_document import Entry, load_document

CLUSTERS = Path("experiments/clusters")
# What a shape may have of its own.
PER_SHAPE = ("partition", "time", "throttle", "qos", "constraint", "options")
Value = str | int | tuple[str, ...]


@dataclass(frozen=True)
class Cluster:
    """What a cluster's job scripts say.

    Attributes:
        name: the file's name.
        nodes: most nodes of one job.
        devices_per_node: most processes of a node, one for each of its GPUs.
        gpus: how GPUs are asked for, `--gpus-per-node={}`; empty where there are none.
        cpus_per_task: CPUs of each process.
        time: limit of a job, as SLURM writes it; a job that reaches it is queued again.
        partition: as the others below, empty for the cluster's default.
        account: account.
        qos: quality of service.
        constraint: features of nodes.
        throttle: most tasks of an array at a time; 0 for all.
        signal_seconds: how long before its end a job is warned: longer than a step and a checkpoint.
        max_restarts: how often a task is put into the queue again.
        max_array: most tasks of an array (MaxArraySize).
        options: further options of sbatch, `--mem=0`.
        setup: shell lines before the run: modules, an environment, variables.
        launcher: words before `python`, a container's.
        python: the interpreter; empty for the one that submits.
        shapes: by `NODESxDEVICES`, what a shape has of its own.
    """

    name: str
    nodes: int
    devices_per_node: int
    time: str
    gpus: str = ""
    cpus_per_task: int = 1
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    throttle: int = 0
    signal_seconds: int = 180
    max_restarts: int = 50
    max_array: int = 1000
    options: tuple[str, ...] = ()
    setup: str = ""
    launcher: str = ""
    python: str = ""
    shapes: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = ()

    def for_shape(self, nodes: int, devices: int) -> "Cluster":
        """Return what holds for jobs of a shape.

        Raises:
            ValueError: the shape doesn't fit on this cluster.
        """
        if nodes > self.nodes or devices > self.devices_per_node:
            raise ValueError(
                f"{nodes} nodes x {devices} devices don't fit on {self.name} ({self.nodes} x {self.devices_per_node}): "
                "set trainer.num_nodes and trainer.devices, or choose another cluster"
            )
        own = dict(self.shapes).get(f"{nodes}x{devices}", ())
        return replace(self, **dict(own))  # type: ignore[arg-type]  # by the types of the fields


def cluster_file(name: str) -> Path:
    """Return the file of a cluster that is given by name, or as a file."""
    return Path(name) if name.endswith(".yaml") else CLUSTERS / f"{name}.yaml"


def _existing_file(name: str) -> Path:
    path = cluster_file(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in CLUSTERS.glob("*.yaml"))) or "nothing"
        raise FileNotFoundError(f"{path}: there is no such cluster; known: {known}")
    return path


def load_cluster(name: str) -> Cluster:
    """Read a cluster's file.

    Args:
        name: its name in `experiments/clusters`, or a file.

    Raises:
        FileNotFoundError: there is no such file; names those that there are.
        ValueError: one line with file, line and key.
    """
    path = _existing_file(name)
    own = [field.name for field in fields(Cluster) if field.name != "name"]
    entries = load_document(path).fields(own, required=("nodes", "devices_per_node", "time"))
    values = {key: _value(key, entry) for key, entry in entries.items() if key != "shapes"}
    if "gpus" in entries and "{}" not in str(values["gpus"]):
        raise entries["gpus"].error("expected an option with {} for the number of GPUs, --gpus-per-node={}")
    shapes = entries["shapes"].mapping() if "shapes" in entries else {}
    return Cluster(
        name=path.stem,
        shapes=tuple((shape, _shape(entry)) for shape, entry in shapes.items()),
        **values,  # type: ignore[arg-type]  # by the types of the fields
    )


def _shape(entry: Entry) -> tuple[tuple[str, Value], ...]:
    return tuple((key, _value(key, child)) for key, child in entry.fields(PER_SHAPE).items())


def _value(key: str, entry: Entry) -> Value:
    if key == "options":
        return tuple(item.text() for item in entry.items())
    if Cluster.__annotations__[key] is str:
        return entry.text()
    return entry.integer(at_least=0 if key in ("throttle", "max_restarts") else 1)

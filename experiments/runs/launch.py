"""How this process was started: which rank it is, and whether what it was given is what its trainer wants."""

import os
from collections.abc import Mapping
from typing import Any

INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which Lightning starts its processes by itself


def global_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Return this process's rank before there is a process group: as torchrun, Lightning or srun tell it, else 0."""
    if not under_srun(environ):
        return int(environ.get("RANK") or environ.get("LOCAL_RANK") or 0)
    return int(environ.get("SLURM_PROCID") or 0)


def under_srun(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether Lightning will take its ranks from SLURM."""
    return "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in INTERACTIVE


def shape_of(trainer: Mapping[str, Any]) -> tuple[int, int]:
    """Return (nodes, devices per node) of a resolved `trainer` section.

    Raises:
        ValueError: the number of devices is left to the machine.
    """
    devices = trainer.get("devices", 1)
    devices = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 0
    if not devices:
        raise ValueError(
            f"trainer.devices is {trainer.get('devices')!r}, which another machine may take for another number, and "
            "then other results: say how many devices per node"
        )
    return int(trainer.get("num_nodes") or 1), devices


def check_launch(trainer: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> None:
    """Compare nodes, tasks and devices with what the trainer wants; where they differ, ranks would wait for ever.

    Args:
        trainer: the `trainer` section of a resolved config.
        environ: the environment.

    Raises:
        ValueError: they differ; says what was got and what to do.
    """
    if not under_srun(environ):
        if int(nodes := trainer.get("num_nodes") or 1) > 1 and "RANK" not in environ:
            raise ValueError(
                f"the run wants {nodes} nodes and was started on one: use `mntp ablate submit` on a cluster, or set "
                "trainer.num_nodes: 1"
            )
        return
    nodes, devices = shape_of(trainer)
    tasks, found_nodes = int(environ["SLURM_NTASKS"]), int(environ.get("SLURM_NNODES", 1))
    if (found_nodes, tasks) != (nodes, nodes * devices):
        raise ValueError(
            f"the run wants {nodes} nodes x {devices} tasks, SLURM gave {found_nodes} nodes and {tasks} tasks: set "
            f"--nodes={nodes} --ntasks-per-node={devices}, or trainer.num_nodes and trainer.devices"
        )
    if tasks > 1 and "SLURM_STEP_ID" not in environ:
        raise ValueError(f"SLURM gave {tasks} tasks, and this is one process outside of them: start it by srun")
    _check_gpus(trainer, devices, environ)


def _check_gpus(trainer: Mapping[str, Any], devices: int, environ: Mapping[str, str]) -> None:
    """Each task has to see all GPUs of its node that the run uses."""
    accelerator, visible = trainer.get("accelerator"), environ.get("CUDA_VISIBLE_DEVICES")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator != "cpu" and "SLURM_GPUS_ON_NODE" in environ)
    if not on_gpu or visible is None:
        return
    found = len([word for word in visible.split(",") if word])
    if found < devices:
        raise ValueError(
            f"the run wants {devices} GPUs per node, this task sees {found} (CUDA_VISIBLE_DEVICES={visible!r}): "
            "give the node's GPUs to all of its tasks (--gpus-per-node, not --gpus-per-task)"
        )

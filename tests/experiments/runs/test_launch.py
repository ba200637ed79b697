"""Ranks and allocations: a mismatch is said in one line, before anything could wait for ever."""

import pytest

from experiments.runs.launch import check_launch, global_rank, shape_of, under_srun


def slurm(nodes: int, tasks: int, **more: str) -> dict[str, str]:
    environ = {"SLURM_NNODES": str(nodes), "SLURM_NTASKS": str(tasks), "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "mntp"}
    return environ | more


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "1"}, 1),
        ({"RANK": "9", "LOCAL_RANK": "1"}, 9),
        (slurm(2, 2, SLURM_PROCID="1"), 1),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bash", "LOCAL_RANK": "1"}, 1),
    ],
)
def test_the_rank_is_that_of_whoever_starts_the_processes(environ: dict[str, str], rank: int) -> None:
    assert global_rank(environ) == rank


def test_an_interactive_job_is_no_srun() -> None:
    assert under_srun(slurm(1, 1)) and not under_srun(slurm(1, 1, SLURM_JOB_NAME="interactive")) and not under_srun({})


def test_shapes() -> None:
    assert shape_of({"num_nodes": 5, "devices": 8}) == (5, 8)
    assert shape_of({"devices": [0, 2]}) == (1, 2) and shape_of({"devices": "4"}) == (1, 4)
    for devices in ("auto", -1):
        with pytest.raises(ValueError, match="say how many devices per node"):
            shape_of({"devices": devices})


FITTING = {"num_nodes": 2, "devices": 4, "accelerator": "gpu"}


def test_what_fits_passes() -> None:
    check_launch(FITTING, slurm(2, 8, CUDA_VISIBLE_DEVICES="0,1,2,3", SLURM_GPUS_ON_NODE="4"))
    check_launch({"num_nodes": 1, "devices": 2}, {})  # Lightning starts the second one
    check_launch({"num_nodes": 2, "devices": 1}, {"RANK": "0"})  # torchrun


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (slurm(1, 4), "wants 2 nodes x 4 tasks, SLURM gave 1 nodes and 4 tasks"),
        (slurm(2, 2), "SLURM gave 2 nodes and 2 tasks"),
        ({k: v for k, v in slurm(2, 8).items() if k != "SLURM_STEP_ID"}, "start it by srun"),
        (slurm(2, 8, CUDA_VISIBLE_DEVICES="0"), "wants 4 GPUs per node, this task sees 1"),
        ({}, "wants 2 nodes and was started on one"),
    ],
)
def test_what_does_not_fit_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_launch(FITTING, environ)

"""Two real processes: one mask ratio for all ranks (or one each), other positions for every clip, equal weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mntp.masking import Uniform, num_hidden_when_dropping
from mntp.seeding import make_generator
from tests.mntp.systems.two_ranks import BAD_RANK, BAD_STEP, STEPS
from tests.systems_support import N

LAW = Uniform(0.1, 0.9)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both ranks have drawn in three trainings."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        place = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        words = [sys.executable, "-m", "tests.mntp.systems.two_ranks", str(folder)]
        environment = {**os.environ, **place, "OMP_NUM_THREADS": "1"}
        ranks.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL))
    try:
        for process in ranks:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in ranks:
            process.kill()
    return folder


def both(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(2))
    return first, second


def law(step: int, *rank: int) -> float:
    """The stated function of (seed, step) and, with the key, rank."""
    return LAW.sample(make_generator(0, "ratio", step, *rank))


def test_one_ratio_a_step_for_all_ranks(folder: Path) -> None:
    first, second = both(folder, "default")
    assert first["ratios"] == second["ratios"] == pytest.approx([law(step) for step in range(STEPS)])
    assert len(set(first["ratios"])) == STEPS
    for one, other in zip(first["masks"], second["masks"], strict=True):
        assert one.sum(dim=1).tolist() == other.sum(dim=1).tolist()


def test_with_the_key_each_rank_draws_its_own(folder: Path) -> None:
    for rank, seen in enumerate(both(folder, "per rank")):
        assert seen["ratios"] == pytest.approx([law(step, rank) for step in range(STEPS)])
    first, second = both(folder, "per rank")
    assert not set(first["ratios"]) & set(second["ratios"])


@pytest.mark.parametrize("name", ["default", "per rank"])
def test_positions_differ_between_clips_steps_and_ranks(folder: Path, name: str) -> None:
    for seen in both(folder, name):
        for ratio, mask in zip(seen["ratios"], seen["masks"], strict=True):
            assert (mask.sum(dim=1) == num_hidden_when_dropping(ratio, N)).all()
    middle = [  # of the steps that hide 4 to 8 of 12 tokens: 495 to 924 equally likely masks
        {tuple(clip) for clip in mask.tolist()}
        for seen in both(folder, name)
        for mask in seen["masks"]
        if 4 <= int(mask[0].sum()) <= N - 4
    ]
    assert len(middle) >= 4
    assert len(set.union(*middle)) >= 4 * len(middle) - 1  # one coincidence is allowed


def test_weights_start_and_stay_equal_and_a_step_that_one_rank_can_not_take_is_taken_by_none(folder: Path) -> None:
    for one, other in zip(*(seen["weights"] for seen in both(folder, "default")), strict=True):
        assert torch.equal(one, other)
    weights = both(folder, "default")[0]["weights"]
    stays = [torch.equal(weights[step], weights[step - 1]) for step in range(1, STEPS)]
    assert stays == [step == BAD_STEP for step in range(1, STEPS)]
    (line,) = (folder / "default" / "skipped.jsonl").read_text().splitlines()
    written = json.loads(line)
    assert (written["step"], written["rank"], written["what"]) == (BAD_STEP, BAD_RANK, "loss")
    assert written["rows"] == [110, 111, 112, 113]


def test_compiled_ranks_stay_equal_and_change_nothing(folder: Path) -> None:
    compiled, plain = both(folder, "compiled"), both(folder, "default")
    for one, other, expected in zip(*(seen["weights"] for seen in (*compiled, plain[0])), strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=5e-5)  # a step moves a weight by up to 1e-4

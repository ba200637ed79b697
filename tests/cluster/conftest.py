"""A real cluster of four nodes for the whole session, and cells of two nodes that take seconds on it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster import lab
from tests.experiments.runs.support import TINY

NODES = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def slurm() -> Iterator[Path]:
    """The cluster's folder; SLURM_CONF is set for this process and all that it starts."""
    if os.environ.get("TEST_CLUSTER") != "1":
        pytest.skip("takes minutes and SLURM: `apt-get install slurm-wlm munge`, then `make test-cluster`")
    if missing := lab.missing_programs():
        pytest.fail(f"no {', '.join(missing)} here: `apt-get install slurm-wlm munge`")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders are closed to munged
    folder.chmod(0o755)
    with (folder / "serve.out").open("wb") as out:
        served = subprocess.Popen(lab.command(folder, NODES), stdout=out, stderr=out, start_new_session=True)
    try:
        while not (folder / "ready").exists():
            assert served.poll() is None, (folder / "serve.out").read_text()
            time.sleep(0.05)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            patch.setenv("PYTHONPATH", str(ROOT))
            patch.setenv("OMP_NUM_THREADS", "1")
            yield folder
    finally:
        (folder / "stop").touch()
        served.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


SETTINGS = {
    **TINY,
    "trainer.accelerator": "cpu",
    "trainer.num_nodes": 2,
    "trainer.max_steps": 150,
    "trainer.val_check_interval": 150,
    "trainer.callbacks": [
        {"class_path": "callbacks.EMA"},
        {"class_path": "callbacks.SkipNonFinite"},
        {"class_path": "callbacks.LastCheckpoint", "init_args": {"seconds": 0.5}},
    ],
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the matrix, at a scale of seconds on two nodes, and the cluster's description."""
    folder = tmp_path_factory.mktemp("shared")
    settings = SETTINGS | {"data.store": str(folder / "store")}
    scale = {
        "configs": str(ROOT / "experiments/configs/micro"),
        "set": settings,
        "eval": {"split": "test", "num_clips": 4, "seed": 0, "batch_size": 3},
    }
    text = (ROOT / "ablations.yaml").read_text()
    scales = yaml.safe_dump({"lab": scale}, sort_keys=False)
    indented = "".join(f"  {line}\n" for line in scales.splitlines())
    (folder / "ablations.yaml").write_text(text.replace("scales:\n", f"scales:\n{indented}", 1))
    cluster = {
        "nodes": 2,
        "devices_per_node": 1,
        "time": "10",
        "partition": "main",
        "signal_seconds": 30,
        "max_restarts": 5,
        "python": sys.executable,
        "shapes": {"2x1": {"throttle": 2}},
    }
    (folder / "lab.yaml").write_text(yaml.safe_dump(cluster, sort_keys=False))
    return folder

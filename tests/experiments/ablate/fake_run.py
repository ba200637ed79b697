"""Stands for `experiments.runs.run` in tests of the runner: writes the same files, misbehaves as its config says.

`fake.mode` in config.yaml: ok, crash (after half of the steps), hang (until it is ended), silent (ends without
metrics). `fake.steps` steps take `fake.seconds` each.
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

import yaml

from experiments.scoring.protocol import scoring_hash


def main(run_dir: Path, protocol: str) -> int:
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    fake, parent = config["fake"], os.getppid()
    lock = (run_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("this run is held by process 1 on nowhere")
        return 3
    with (run_dir / "calls.txt").open("a") as calls:
        calls.write(f"{protocol}\n")
    write(run_dir / "run.json", {"state": "training", "error": None, "pid": os.getpid()})
    for step in range(fake["steps"] + 1):
        progress = {"phase": "training", "step": step, "max_steps": fake["steps"], "loss": 1 / (1 + step)}
        write(run_dir / "progress.json", progress | {"time": time.time()})
        if fake["mode"] == "crash" and step * 2 >= fake["steps"]:
            print("about to divide")
            raise ZeroDivisionError("a step went wrong")
        while fake["mode"] == "hang" and os.getppid() == parent:
            time.sleep(0.02)
        if os.getppid() != parent:
            return 1
        time.sleep(fake["seconds"])
    if fake["mode"] != "silent":
        write(run_dir / "run.json", {"state": "trained", "train_seconds": 1.5, "gpu_seconds": 0.0, "commit": "abc"})
        scoring = run_dir / "evals" / protocol
        metrics = {"fd_judge": 2.0, "kl_judge": 0.5, "is_judge": 3.0, "text_judge": 0.4, "num_clips": 4}
        rules = json.loads((scoring / "protocol.json").read_text())
        write(scoring / "metrics.json", metrics | {"plan_scoring_hash": scoring_hash(rules)})
    return 0


def write(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))

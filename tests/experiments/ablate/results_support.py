"""Planned cells and run folders for the tests of tables and reports."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from experiments.ablate.plan.plan_file import Plan, PlannedCell, PlannedTable
from experiments.scoring.protocol import scoring_hash

PROTOCOL = "9a0700000000"
RULES = {"scoring": {"kind": "embedded", "split": "test", "num_clips": 128}, "generation": {}}


def cell(folder: Path, table: str, row: str, **changes: Any) -> PlannedCell:
    base = PlannedCell(
        table=table, row=row, reference=False, system="AudioMNTP", scale="micro", seed=0, description=f"row {row}",
        settings={"system": "AudioMNTP", "schedule": "C"}, source="model", differences={}, published={}, selected=True,
        needs={}, same_as="", run_dir=str(folder / "runs" / f"AudioMNTP-{row}-s0"), train_hash=f"hash{row}",
        protocol_hash=PROTOCOL,
    )  # fmt: skip
    return replace(base, **changes)


def scoring_folder(item: PlannedCell) -> Path:
    return Path(item.run_dir) / "evals" / item.protocol_hash


def finish(item: PlannedCell, metrics: dict[str, Any], **about: Any) -> None:
    """Write what a finished cell leaves; `about` goes into its run.json."""
    scoring = scoring_folder(item)
    scoring.mkdir(parents=True, exist_ok=True)
    (scoring / "metrics.json").write_text(json.dumps(metrics))
    (scoring / "score.json").write_text(json.dumps({"sample_seconds": 19.0, "score_seconds": 2.0}))
    record = {"state": "trained", "train_seconds": 80.0, "gpu_seconds": 0.0, "commit": "0123abc"}
    (Path(item.run_dir) / "run.json").write_text(json.dumps(record | about))


def scores(fd: float, loss: float | None, **more: Any) -> dict[str, Any]:
    ntp = {} if loss is None else {"ntp_loss": loss}
    values = {"fd_judge": fd, "kl_judge": 0.5, "is_judge": 3.25, "text_judge": 0.4, "num_clips": 64, "coverage": 0.5}
    return {**values, "plan_scoring_hash": scoring_hash(RULES), **ntp, **more}


def plan_of(*cells: PlannedCell, judge: str = "embedded", **tables: PlannedTable) -> Plan:
    shown = tables or {name: PlannedTable(name) for name in dict.fromkeys(cell.table for cell in cells)}
    return Plan("ablations", cells[0].scale, judge, shown, {PROTOCOL: RULES}, cells)


def write_sounds(folder: Path, names: list[str], seconds: float = 0.3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        wave = 0.3 * np.sin(np.arange(int(16_000 * seconds)) * (0.1 + 0.05 * number))
        soundfile.write(folder / name, wave, 16_000, subtype="PCM_16")


def write_store(folder: Path, captions: dict[str, str]) -> None:
    """What a report reads of prepared data: captions by file name, and the test clips."""
    write_sounds(folder / "audio" / "test", list(captions))
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "file", "caption", "split", "seconds", "start"])
        writer.writerows([Path(name).stem, "x", caption, "test", 1, 0] for name, caption in captions.items())


def write_config(item: PlannedCell, store: Path) -> None:
    Path(item.run_dir).mkdir(parents=True, exist_ok=True)
    (Path(item.run_dir) / "config.yaml").write_text(yaml.safe_dump({"data": {"store": str(store)}}))

"""A training that diverges, from its config on: it ends with the clips named and a checkpoint that makes sound."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import SkipNonFinite
from data_modules.store.store import Store
from experiments.config.lightning_cli import SuiteCLI
from mntp.inference.checkpoint import load_system
from mntp.systems import AudioMNTP
from tests.experiments.runs.support import Shared, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on small data
GOOD_STEPS, LIMIT = 6, 10


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_ten_steps_in_a_row_end_it_with_a_usable_checkpoint(
    tmp_path: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    config = tiny_config(shared[0], checkpoint_seconds=1e9)
    config["trainer"].update(
        default_root_dir=str(tmp_path), logger=False, precision=precision, enable_progress_bar=False
    )
    config["trainer"]["callbacks"] = [
        callback for callback in config["trainer"]["callbacks"] if not callback["class_path"].endswith("SampleLogger")
    ]
    suite = SuiteCLI(config, run=False)
    weights: list[torch.Tensor] = []
    rows: list[list[int]] = []
    whole = AudioMNTP.loss

    def diverge(system: AudioMNTP, batch: Any, *arguments: Any) -> torch.Tensor:
        rows.append(batch.index.tolist())
        weights.append(torch.nn.utils.parameters_to_vector(system.parameters()).detach().clone())
        loss = whole(system, batch, *arguments)
        return loss if len(rows) <= GOOD_STEPS else loss * torch.nan

    monkeypatch.setattr(AudioMNTP, "loss", diverge)
    with pytest.raises(ValueError, match=rf"ended at step {GOOD_STEPS + LIMIT}: the loss was not finite in {LIMIT} st"):
        suite.trainer.fit(suite.model, datamodule=suite.datamodule)
    assert len(rows) == GOOD_STEPS + LIMIT
    assert all(torch.equal(later, weights[GOOD_STEPS]) for later in weights[GOOD_STEPS:])
    assert not torch.equal(weights[0], weights[GOOD_STEPS])

    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(GOOD_STEPS, GOOD_STEPS + LIMIT))
    assert [line["rows"] for line in lines] == rows[GOOD_STEPS:]
    clips = Store(shared[0] / "store").clips
    assert [line["files"] for line in lines] == [[clips[row].file for row in line["rows"]] for line in lines]

    last = tmp_path / "checkpoints" / "last.ckpt"
    system = load_system(last)
    system.decoding = replace(system.decoding, sampling={"num_steps": 3, "x0_limit": 5.0})
    batch = next(iter(suite.datamodule.val_dataloader()))
    assert system.generate(batch.text, batch.index.tolist()).isfinite().all()
    assert all(parameter.isfinite().all() and parameter.dtype == torch.float32 for parameter in system.parameters())

    monkeypatch.setattr(AudioMNTP, "loss", whole)  # as after a remedy: it goes on from there to the end
    again = SuiteCLI(config, run=False)
    again.trainer.fit(again.model, datamodule=again.datamodule, ckpt_path=last, weights_only=True)
    assert again.trainer.global_step == config["trainer"]["max_steps"]
    (skipping,) = [c for c in again.trainer.callbacks if isinstance(c, SkipNonFinite)]
    assert skipping.skipped == LIMIT

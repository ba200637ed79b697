"""The section `init`: a run starts from another run's weights, a resumed one from its own checkpoint."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI

from callbacks import ProgressFile
from experiments.config.lightning_cli import SuiteCLI, main
from experiments.config.resolve import build_data
from experiments.runs.record import RunRecord
from experiments.runs.run import train_and_measure
from experiments.runs.stop import StopRequest
from mntp.initial_weights import TrainedSystem
from tests.experiments.runs.support import tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on small data
OWN_OF_MAR = {"backbone.mask_token", "backbone.decoder_position_embed", "backbone.output_position_embed"}


def config_of(folder: Path, system: str, max_steps: int) -> dict[str, Any]:
    config = tiny_config(folder, system)
    config["trainer"]["max_steps"] = max_steps
    return config


def run(run_dir: Path, config: dict[str, Any]) -> dict[str, Any]:
    run_dir.mkdir(exist_ok=True)
    progress = ProgressFile(run_dir / "progress.json", "protocol")
    train_and_measure(run_dir, config, RunRecord(run_dir), progress, StopRequest())
    record: dict[str, Any] = json.loads((run_dir / "run.json").read_text())
    return record


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny store, and row K trained for a few steps."""
    folder = tmp_path_factory.mktemp("init")
    config = config_of(folder, "audio_mar", max_steps=3)
    build_data(config).prepare_data()
    assert "initialised_from" not in run(folder / "K", config)
    return folder


@pytest.fixture
def row_b(folder: Path) -> dict[str, Any]:
    """Table 3, row B: AudioNTP that starts from K."""
    config = config_of(folder, "audio_ntp", max_steps=0)
    path = folder / "K" / "checkpoints" / "final.ckpt"
    config["init"] = {"class_path": "mntp.initial_weights.TrainedSystem", "init_args": {"path": str(path)}}
    return config


def test_row_b_starts_from_every_tensor_that_it_shares_with_k(
    tmp_path: Path, folder: Path, row_b: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(tmp_path / "B", row_b)
    first, start = (weights(run_dir / "checkpoints" / "final.ckpt") for run_dir in (folder / "K", tmp_path / "B"))
    assert first.keys() - start.keys() == OWN_OF_MAR
    assert start.keys() - first.keys() == {"backbone.bos"}
    assert all(torch.equal(start[name], first[name]) for name in start.keys() & first.keys())

    own = run(tmp_path / "A", row_b | {"init": None})
    random = weights(tmp_path / "A" / "checkpoints" / "final.ckpt")
    assert torch.equal(start["backbone.bos"], random["backbone.bos"])
    assert not torch.equal(start["head.net.input_proj.weight"], random["head.net.input_proj.weight"])
    assert "initialised_from" not in own
    assert record["initialised_from"]["own"] == {"backbone.bos": 1}
    assert set(record["initialised_from"]["left"]) == OWN_OF_MAR
    assert record["num_head_parameters"] == sum(random[name].numel() for name in random if name.startswith("head."))
    assert "final.ckpt (AudioMAR)\n  taken: " in capsys.readouterr().out


def test_a_resumed_run_does_not_start_again(
    tmp_path: Path, row_b: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    row_b["trainer"]["max_steps"] = 2
    record = run(tmp_path / "B", row_b)
    final = weights(tmp_path / "B" / "checkpoints" / "final.ckpt")
    capsys.readouterr()
    row_b["init"]["init_args"]["path"] = str(tmp_path / "gone.ckpt")
    assert run(tmp_path / "B", row_b)["initialised_from"] == record["initialised_from"]
    assert "initialised from" not in capsys.readouterr().out
    again = weights(tmp_path / "B" / "checkpoints" / "final.ckpt")
    assert all(torch.equal(again[name], final[name]) for name in final)

    with pytest.raises(ValueError, match=r"gone.ckpt: no such file of initial weights; set init: null"):
        run(tmp_path / "B2", row_b)


def test_the_command_line_starts_from_them_too(
    tmp_path: Path,
    folder: Path,
    row_b: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row_b["trainer"] |= {"max_steps": 2, "default_root_dir": str(tmp_path), "enable_progress_bar": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(row_b))

    def lightning(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lightning", *words, "--config", str(tmp_path / "config.yaml")])
        main()
        return capsys.readouterr().out

    assert "initialised from TrainedSystem" in lightning("fit")
    last = next(tmp_path.rglob("last.ckpt"))
    assert "initialised from" not in lightning("fit", "--ckpt_path", str(last))
    assert "initialised from" not in lightning("validate", "--ckpt_path", str(last))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_heads", 4, "its model.init_args.backbone.init_args.num_heads is 2, the model's is 4"),
        ("depth", 4, "its model.init_args.backbone.init_args.depth is 2, the model's is 4"),
        ("dim", 32, r"backbone.position_embed is \[33, 16\] in the file and \[33, 32\] in the model"),
        ("streams", None, r"its model.init_args.streams is \['pooled', 'words'\], the model's is \['words'\]"),
        ("head", None, "its model.init_args.head.class_path is DiffusionHead, the model's is FlowMatchingHead"),
    ],
)
def test_a_run_of_another_model_is_refused(row_b: dict[str, Any], key: str, value: int | None, message: str) -> None:
    arguments = row_b["model"]["init_args"]
    if key == "streams":
        del arguments["streams"]["pooled"]
    elif key == "head":
        arguments["head"] = {"class_path": "FlowMatchingHead", "init_args": {"width": 16, "depth": 2}}
        arguments["decoding"]["sampling"] = {}
    else:
        arguments["backbone"]["init_args"][key] = value
    suite = SuiteCLI(row_b, run=False)
    with pytest.raises(ValueError, match=message) as caught:
        suite.initialise()
    assert "\n" not in str(caught.value)


def test_lightning_still_asks_whether_a_checkpoints_settings_hold(
    row_b: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SuiteCLI` overrides a private method: where Lightning renames it, a checkpoint's settings would hold again."""
    asked: list[bool] = []
    monkeypatch.setattr(SuiteCLI, "_parse_ckpt_path", lambda suite: asked.append(True))
    SuiteCLI(row_b, run=False)
    assert asked and hasattr(LightningCLI, "_parse_ckpt_path")


def test_the_preprocessing_comes_along(folder: Path, row_b: dict[str, Any]) -> None:
    suite = SuiteCLI(row_b, run=False)
    assert suite.model.preprocessing is None
    suite.initialise()
    assert (
        suite.model.preprocessing["tokenizer"]["fingerprint"]
        == suite.datamodule.preprocessing["tokenizer"]["fingerprint"]
    )


def test_another_programs_checkpoint_is_refused(tmp_path: Path, row_b: dict[str, Any]) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt: not a checkpoint of this suite \('hyper_parameters'\)"):
        TrainedSystem(tmp_path / "other.ckpt").apply(SuiteCLI(row_b, run=False).model)

"""Sizes of the paper's models, counted on the meta device, and configs laid over one another."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.commands.params import count_parts, params
from experiments.config.resolve import build_model, load_config, resolve
from experiments.main import call

FOLDER = Path(__file__).parents[3] / "experiments" / "configs"
LARGE = FOLDER / "large.yaml"
SYSTEMS = ("audio_ntp", "audio_mntp", "audio_mar")


def counts(*layers: dict[str, Any]) -> dict[str, int]:
    with torch.device("meta"):
        return count_parts(build_model(resolve(*layers)))


def base(system: str) -> dict[str, Any]:
    return load_config(FOLDER / "base" / f"{system}.yaml")


@pytest.mark.parametrize(("depth", "expected"), [(1, 9_843_968), (3, 20_344_064), (6, 36_094_208)])
def test_heads_of_table_4(depth: int, expected: int) -> None:
    head = {"model": {"init_args": {"head": {"init_args": {"depth": depth}}}}}
    assert counts(base("audio_mntp"), head)["head"] == expected


@pytest.mark.parametrize(("system", "millions"), [("audio_ntp", 192.65), ("audio_mntp", 192.84), ("audio_mar", 193.10)])
def test_base_has_the_papers_193_million(system: str, millions: float) -> None:
    found = counts(base(system))
    assert round(found["total"] / 1e6, 2) == millions
    assert found["total"] == pytest.approx(193e6, rel=0.005)
    dim, depth, mlp = 768, 24, 4 * 768
    block = 2 * 2 * dim + (3 * dim * dim + 3 * dim) + (dim * dim + dim) + (dim * mlp + mlp) + (mlp * dim + dim)
    assert found["blocks"] == depth * block  # the paper's "about 170 M"
    assert found["prompt"] == (512 * dim + dim) + (1024 * dim + dim) + dim + 78 * dim
    assert found["positions"] == (334 if system != "audio_mar" else 2 * 334 + 256) * dim
    assert found.get("target positions") == (256 * dim if system == "audio_mntp" else None)


def test_large_has_443_million() -> None:
    found = counts(base("audio_mntp"), load_config(LARGE))
    assert round(found["total"] / 1e6) == 443
    assert round(found["blocks"] / 1e6) == 403


@pytest.mark.parametrize("system", SYSTEMS)
def test_parts_add_up_and_every_one_is_named(system: str) -> None:
    found = counts(base(system))
    total, trainable = found.pop("total"), found.pop("trainable")
    assert sum(found.values()) == total == trainable
    known = {"blocks", "head", "prompt", "norms and bridge", "positions", "target positions", "token projection"}
    assert set(found) <= known | {"BOS", "mask token"}


def leaves(node: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {key: node}
    return {name: value for part in node for name, value in leaves(node[part], f"{key}.{part}".lstrip(".")).items()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_large_lies_over_any_base_config_and_changes_its_own_keys_only(system: str) -> None:
    overlay = leaves(load_config(LARGE))
    before, after = leaves(resolve(base(system))), leaves(resolve(base(system), load_config(LARGE)))
    assert before.keys() == after.keys()
    assert {key: after[key] for key in after if after[key] != before[key]} == overlay


def test_an_epoch_and_a_step_are_the_papers() -> None:
    for layers in ((base("audio_mntp"),), (base("audio_mntp"), load_config(LARGE))):
        config = resolve(*layers)
        trainer, clips = config["trainer"], config["data"]["batch_size"]
        assert trainer["devices"] * clips * trainer["accumulate_grad_batches"] == 2048
        steps_an_epoch = -(-450_000 // 2048)
        assert trainer["max_steps"] == 1000 * steps_an_epoch
        assert config["model"]["init_args"]["optimisation"]["num_warmup_steps"] == 100 * steps_an_epoch
        assert trainer["val_check_interval"] == 10 * steps_an_epoch * trainer["accumulate_grad_batches"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_optimisation_is_the_papers_and_mars(system: str) -> None:
    for layers in ((base(system),), (base(system), load_config(LARGE))):
        config = resolve(*layers)
        optimisation, trainer = config["model"]["init_args"]["optimisation"], config["trainer"]
        assert (optimisation["learning_rate"], optimisation["betas"]) == (1e-4, [0.9, 0.95])
        assert optimisation["weight_decay"] == 0.02
        assert trainer["gradient_clip_val"] == 3.0 and trainer["gradient_clip_algorithm"] in (None, "norm")
        (ema,) = [c for c in trainer["callbacks"] if c["class_path"] == "callbacks.EMA"]
        assert ema["init_args"] == {"decay": 0.9999, "warm_up": True}
        assert any(c["class_path"] == "callbacks.SkipNonFinite" for c in trainer["callbacks"])
        head = config["model"]["init_args"]["head"]["init_args"]
        assert (head["width"], head["num_noise_draws"]) == (1024, 4)
        assert config["model"]["init_args"]["decoding"]["guidance"]["scale"] == 7.0
        assert config["model"]["init_args"]["decoding"]["sampling"]["num_steps"] == 100
        assert config["model"]["init_args"]["prompt_drop"] == 0.1


def test_the_command_takes_several_configs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", str(FOLDER / "base" / "audio_mar.yaml"), f"--config={LARGE}"]
    call(params, "params", [*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found == counts(base("audio_mar"), load_config(LARGE))
    call(params, "params", words[:2])
    shown = capsys.readouterr().out
    assert "AudioMAR" in shown and "193,099,520" in shown and "100.00%" in shown


def test_an_overlay_alone_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"large.yaml: names no model.class_path; give the config that it is laid over"
    ):
        params([LARGE])

"""Arguments that have had other names: what an earlier config says is built as what it meant."""

from typing import Any

import pytest

from mntp.heads import DiffusionSampling, FlowSampling, MixtureSampling
from mntp.systems import build_system, plain_arguments
from mntp.systems.earlier_names import with_present_names

EARLIER: dict[str, Any] = {
    "token_dim": 4,
    "num_tokens": 8,
    "streams": {"words": {"dim": 5, "slots": 3}},
    "backbone": {"class_path": "mntp.backbones.CausalTransformer", "init_args": {"dim": 8, "depth": 2, "num_heads": 2}},
    "head": {"class_path": "mntp.heads.DiffusionHead", "init_args": {"width": 8, "depth": 1}},
    "ratio": {
        "class_path": "mntp.masking.Mixture",
        "init_args": {
            "laws": [
                {"class_path": "mntp.masking.Normal", "init_args": {"loc": 0.75, "scale": 0.1}},
                {"class_path": "mntp.masking.Fixed", "init_args": {"value": 0.5}},
            ],
            "weights": [0.5, 0.5],
        },
    },
    "decoding": {"tokens_per_call": 4, "growing": True, "num_diffusion_steps": 7, "solver": None, "x0_limit": 5.0},
}


def test_an_earlier_checkpoints_arguments_build_what_they_meant() -> None:
    system: Any = build_system("mntp.systems.AudioMNTP", EARLIER)
    assert system.decoding.ramp and system.decoding.tokens_per_call == 4
    assert system.decoding.sampling == DiffusionSampling(num_steps=7, solver="ancestral", x0_limit=5.0)
    assert [type(part).__name__ for part in system.mask_ratio.components] == ["ClippedNormal", "Fixed"]
    assert system.prompt.length == 3
    _, arguments = plain_arguments(system)
    assert arguments == with_present_names(EARLIER)  # what is saved from now on has the present names


@pytest.mark.parametrize("hide", ["zero", "gaussian", "drop"])
def test_hide_is_the_masking_mode(hide: str) -> None:
    arguments = {**EARLIER, "hide": hide}
    del arguments["decoding"]
    system: Any = build_system("mntp.systems.AudioNTP", arguments)
    assert system.masking_mode == hide


@pytest.mark.parametrize(
    ("head", "sampling"),
    [
        ("FlowMatchingHead", FlowSampling(num_steps=7, solver="euler", x0_limit=5.0, guided_steps=(0.0, 0.5))),
        ("MixtureHead", MixtureSampling(temperature=0.9, x0_limit=5.0)),  # it never looked at steps and solver
    ],
)
def test_settings_that_stood_in_decoding_go_to_the_head(head: str, sampling: Any) -> None:
    """As a checkpoint of before has them: all of them, whatever the head."""
    decoding = {"num_diffusion_steps": 7, "solver": None, "x0_limit": 5.0, "guided_steps": [0.0, 0.5]}
    arguments = {
        **EARLIER,
        "head": {"class_path": f"mntp.heads.{head}", "init_args": {"width": 8}},
        "decoding": {**decoding, "temperature": sampling.temperature},
    }
    system: Any = build_system("mntp.systems.AudioMNTP", arguments)
    assert system.decoding.sampling == sampling


def test_present_names_stay() -> None:
    present = with_present_names(EARLIER)
    assert with_present_names(present) == present
    assert "hide" not in present and EARLIER["streams"]["words"] == {"dim": 5, "slots": 3}  # the given one is untouched

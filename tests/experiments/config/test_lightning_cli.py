"""Configs: every one resolves; a mistake is one line that names key, place and remedy; commands start without torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.config import resolve as cli
from experiments.config.resolve import build_model, load_config, resolve
from experiments.main import _options, usage

FOLDER = Path(__file__).parents[3] / "experiments" / "configs"
CONFIGS = sorted(FOLDER.glob("*/*.yaml"))  # those in the folder itself are overlays
MNTP = FOLDER / "micro" / "audio_mntp.yaml"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_resolves_and_the_result_resolves_to_itself(path: Path) -> None:
    resolved = resolve(load_config(path))
    assert resolve(resolved) == resolved
    assert resolve(load_config(path), {}) == resolved  # the model as a whole, beside argument by argument
    assert resolved["model"]["init_args"]["prompt_drop"] == 0.1  # defaults are filled in


def test_a_cell_that_differs_in_one_argument_has_only_that_one_parsed() -> None:
    config = load_config(MNTP)
    resolve(config)
    parsed = cli._argument.cache_info().misses
    head(config)["init_args"]["width"] = 272
    assert resolve(config)["model"]["init_args"]["head"]["init_args"]["width"] == 272
    assert cli._argument.cache_info().misses == parsed + 1


def test_configs_of_one_scale_agree_on_all_that_they_share() -> None:
    for folder in {path.parent for path in CONFIGS}:
        configs = [load_config(path) for path in sorted(folder.glob("*.yaml"))]
        for config in configs:
            own = config["model"]["init_args"]
            own["backbone"].pop("class_path")
            own.pop("mask_ratio", None)
            config["model"].pop("class_path")
        assert all(config == configs[0] for config in configs[1:])


def head(config: dict[str, Any]) -> dict[str, Any]:
    return config["model"]["init_args"]["head"]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda c: head(c)["init_args"].update(widht=3), r"'widht' is not a key that model.head accepts.*'width'\?"),
        (lambda c: head(c).update(class_path="DifusionHead"), r"'DifusionHead' is not a class.*'DiffusionHead'\?"),
        (lambda c: c["model"].update(class_path="AudioMNT"), r"'AudioMNT' is not a class.*'AudioMNTP'\?"),
        (lambda c: c["model"]["init_args"].update(num_tokenz=3), r"'num_tokenz' is not a key.*'num_tokens'\?"),
        (lambda c: c["trainer"].update(max_stepz=3), r"'max_stepz' is not a key that trainer accepts.*'max_steps'\?"),
        (lambda c: c["data"].update(stor="x"), r"'stor' is not a key that data accepts.*'store'\?"),
        (lambda c: c.update(modle={}), r"'modle' is not a key that the top level accepts.*'model'\?"),
        (
            lambda c: c.update(init={"class_path": "ImageMA"}),
            r"'ImageMA' is not a class that init accepts.*'ImageMAR'\?",
        ),
        (lambda c: c.update(init={"class_path": "ImageMAR"}), r"init lacks the required key 'path'"),
        (lambda c: c["data"].update(batch_size="x"), r"data.batch_size: Expected a <class 'int'>. Got value: x"),
        (lambda c: c["model"]["init_args"].pop("head"), r"model lacks the required key 'head'"),
        (
            lambda c: c["model"]["init_args"]["backbone"].update(class_path="MaskedEncoderDecoder"),
            r"'MaskedEncoderDecoder' is not a class that model.backbone accepts; expected one of CausalTransformer",
        ),
        (
            lambda c: c["model"]["init_args"]["decoding"]["guidance"].update(schedule="fading"),
            r"model.decoding.guidance.schedule: Expected.*'annealed'.*Got value: fading",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(mistake: Callable[[dict[str, Any]], object], message: str) -> None:
    config = load_config(MNTP)
    mistake(config)
    with pytest.raises(ValueError, match=message) as caught:
        resolve(config)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError) as whole:
        resolve(config, {})
    assert str(whole.value) == str(caught.value)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("decoding", {"num_steps": 0}, r"decoding\.num_steps: expected n/4, n or a number from 1 up, got 0"),
        ("decoding", {"sampling": {"num_steps": 1}}, r"decoding\.sampling\.num_steps: expected 2 to 1000, got 1"),
        (
            "decoding",
            {"sampling": {"solver": "dim"}},
            r"decoding\.sampling\.solver: 'dim' is not a solver.*did you mean 'ddim'\?",
        ),
        (
            "decoding",
            {"sampling": {"num_step": 4}},
            r"decoding\.sampling: 'num_step' is not a setting of DiffusionHead.*'num_steps'\?",
        ),
        ("mask_ratio", {"class_path": "Fixed", "init_args": {"value": 1.2}}, r"mask ratio: value .*, got 1\.2"),
    ],
)
def test_what_a_part_refuses_is_told_in_its_own_words_before_training(
    part: str, value: dict[str, Any], message: str
) -> None:
    config = load_config(FOLDER / "micro" / "audio_mar.yaml")
    config["model"]["init_args"][part] = value
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_model(resolve(config))


def test_a_config_that_is_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match=r"config.yaml: expected a mapping.*got list"):
        load_config(path)
    path.write_text("a: [")
    with pytest.raises(ValueError, match=r"config.yaml: not valid YAML"):
        load_config(path)


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda c: head(c)["init_args"].update(widht=3), "'widht' is not a key that model.head accepts; did you mean"),
        (lambda c: head(c).update(class_path="DifusionHead"), "'DifusionHead' is not a class that model.head accepts"),
    ],
    ids=["key", "class"],
)
def test_the_command_line_reports_a_misspelt_name_and_exits_with_2(
    tmp_path: Path, mistake: Callable[[dict[str, Any]], object], message: str
) -> None:
    config = load_config(MNTP)
    mistake(config)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = run("experiments", "fit", "--config", "config.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert f"error: config: {message}" in done.stderr
    assert "Traceback" not in done.stderr


def test_print_config_shows_every_default(tmp_path: Path) -> None:
    done = run("experiments", "fit", "--config", str(MNTP), "--print_config", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert shown["model"]["init_args"]["optimisation"]["betas"] == [0.9, 0.95]


def test_help_and_looking_at_results_import_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['mntp', '--help']\n"
        "from experiments.main import main; main()\n"
        "import experiments.commands.ablate\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'transformers', 'diffusers')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "mntp prepare" in done.stdout


def test_unknown_commands_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['mntp', 'abblate']; from experiments.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no command 'abblate'" in done.stderr
    assert usage() in done.stderr


def test_options_may_be_spelt_with_hyphens_and_switches_need_no_value() -> None:
    switches = {"--allow_missing"}
    assert _options(["--allow-missing", "--token-dim=3"], switches) == ["--allow_missing=true", "--token_dim=3"]
    assert _options(["--allow_missing", "false", "a-b"], switches) == ["--allow_missing=false", "a-b"]

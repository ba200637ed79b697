"""config.json and model.safetensors: a model comes back bit for bit, and nothing else comes back as one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mntp.inference.checkpoint import load_system
from mntp.inference.model_folder import read_model_folder, write_model_folder
from mntp.systems import SYSTEMS, build_system, plain_arguments
from tests.disks import disk_of
from tests.models import plain_arguments_of, tiny_trained
from tests.systems_support import tiny_system


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(bits(ours[name]) == bits(theirs[name]) for name in ours)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    system = tiny_trained(name)
    parameter = next(system.parameters())
    parameter.data.view(-1)[:2] = torch.tensor([float("nan"), 1e-42])  # bits, not values
    write_model_folder(system, tmp_path / "made" / "here")
    again = read_model_folder(str(tmp_path / "made" / "here"))
    assert type(again) is type(system)
    assert same_bits(again.state_dict(), system.state_dict())
    assert again.decoding == system.decoding
    assert not again.training
    assert again.preprocessing is not None and system.preprocessing is not None
    tokenizer = system.preprocessing["tokenizer"]
    assert same_bits(again.preprocessing["tokenizer"].pop("state"), tokenizer["state"])
    assert again.preprocessing == {
        **system.preprocessing,
        "tokenizer": {k: v for k, v in tokenizer.items() if k != "state"},
    }
    assert sorted(path.name for path in (tmp_path / "made" / "here").iterdir()) == ["config.json", "model.safetensors"]
    # and what came back is saved as the same files
    write_model_folder(read_model_folder(str(tmp_path / "made" / "here")), tmp_path / "second")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "second" / file).read_bytes() == (tmp_path / "made" / "here" / file).read_bytes()


def test_the_config_is_the_section_of_a_yaml(tmp_path: Path) -> None:
    write_model_folder(tiny_trained(), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["format"] == 2
    assert config["system"] == {"class_path": "mntp.systems.AudioMNTP", "init_args": plain_arguments_of()}
    assert "state" not in config["preprocessing"]["tokenizer"]


def test_a_checkpoint_of_a_built_system_rebuilds_it(tmp_path: Path) -> None:
    """Plain values stay plain: through a folder, and through a checkpoint as a Trainer writes it."""
    import lightning

    write_model_folder(tiny_trained(), tmp_path / "m")
    system = read_model_folder(str(tmp_path / "m"))
    trainer = lightning.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", barebones=False)
    trainer.strategy.connect(system)
    trainer.save_checkpoint(tmp_path / "c.ckpt", weights_only=True)
    again = load_system(tmp_path / "c.ckpt")
    assert same_bits(again.state_dict(), system.state_dict())
    assert plain_arguments(again) == ("mntp.systems.AudioMNTP", plain_arguments_of())


def test_a_system_built_of_objects_is_refused(tmp_path: Path) -> None:
    system = tiny_system("G")
    system.preprocessing = tiny_trained().preprocessing
    with pytest.raises(ValueError, match=r"AudioMNTP was built in Python: .*backbone.* are objects"):
        write_model_folder(system, tmp_path / "m")
    bare = build_system("mntp.systems.AudioNTP", plain_arguments_of("AudioNTP"))
    with pytest.raises(ValueError, match="no tokenizer"):
        write_model_folder(bare, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_folders_are_replaced_as_a_whole_or_refused(tmp_path: Path) -> None:
    first, second = tiny_trained(), tiny_trained("AudioNTP", seed=1)
    (tmp_path / "m").mkdir()  # empty
    write_model_folder(first, tmp_path / "m")
    write_model_folder(second, tmp_path / "m")
    assert same_bits(read_model_folder(str(tmp_path / "m")).state_dict(), second.state_dict())
    (tmp_path / "m" / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    with pytest.raises(ValueError, match="holds other files than a model's"):
        write_model_folder(first, tmp_path / "m")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        write_model_folder(first, tmp_path / "file")
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "m"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 120 KB: enough for one tiny model, not for two."""
    with disk_of("120k", tmp_path / "disk") as folder:
        yield folder


def test_a_full_disk_keeps_the_old_model(small_disk: Path) -> None:
    first = tiny_trained()
    write_model_folder(first, small_disk / "m")
    (small_disk / "other").write_bytes(bytes(30_000))
    for folder in ("m", "n"):
        with pytest.raises(OSError, match="No space left on device"):
            write_model_folder(tiny_trained(seed=1), small_disk / folder)
    assert sorted(path.name for path in small_disk.iterdir()) == ["m", "other"]
    assert same_bits(read_model_folder(str(small_disk / "m")).state_dict(), first.state_dict())


def changed(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def without(*keys: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        inner = config
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        (folder / "config.json").write_text(json.dumps(config))

    return change


def argument(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["system"]["init_args"] |= values
        (folder / "config.json").write_text(json.dumps(config))

    return change


def cut(name: str, share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors")

    return rewrite


HEAD = "system.head.net.cond_proj.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed(format=3, mntp_version="9.1"), "format 3, written by mntp 9.1; this is mntp .*: update it"),
        (changed(format="one"), "not a model of this suite"),
        (without("format"), "not a model of this suite"),
        (without("system"), "not a model of this suite"),
        (without("preprocessing"), "not a model of this suite .no usable 'preprocessing'"),
        (without("preprocessing", "tokenizer"), "not a model of this suite .no usable 'tokenizer'"),
        (without("preprocessing", "num_tokens"), "not a model of this suite .no usable 'num_tokens'"),
        (without("system", "class_path"), "not a model of this suite .no usable 'class_path'"),
        (without("system", "init_args", "backbone"), "can't be built .*backbone"),
        (
            changed(system={"class_path": "mntp.systems.AudioMTP", "init_args": {}}),
            "unknown system class .*did you mean 'AudioMNTP'",
        ),
        (changed(preprocessing=[1]), "not a model of this suite"),
        (argument(nonsense=1), "can't be built .*nonsense"),
        (
            argument(head={"class_path": "turtledemo.clock.Head"}),
            "of the package 'turtledemo', which is not imported; a file alone can't decide that its code is run",
        ),
        (argument(num_tokens=32), "the data has 16 tokens .* the model expects 32"),
        (cut("config.json", 0.5), "not a model of this suite .not JSON"),
        (cut("config.json", 0), "not a model of this suite .not JSON"),
        (cut("model.safetensors", 0.5), "not a whole safetensors file"),
        (cut("model.safetensors", 0), "not a whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors there"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json there"),
        (tensors(lambda found: found.pop(HEAD)), "the file lacks head.net.cond_proj.weight"),
        (tensors(lambda found: found.update(more=torch.zeros(1))), "has unexpected tensors: more"),
        (tensors(lambda found: found.update({HEAD: torch.zeros(2, 2)})), "has another shape than the model for head"),
        (tensors(lambda found: found.pop("tokenizer.mean")), "wrong or missing mean"),
        (tensors(lambda found: found["tokenizer.mean"].add_(1)), "it was altered"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    from mntp.inference.text_to_audio import TextToAudio

    folder = tmp_path / "m"
    write_model_folder(tiny_trained(), folder)
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        TextToAudio(read_model_folder(str(folder)), "cpu")
    assert "\n" not in str(caught.value)

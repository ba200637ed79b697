"""README's commands are real: the own-folder section is run as it stands, the others name what exists."""

import inspect
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from data_modules.scenes import EmbeddedCorpus
from experiments.main import COMMANDS, LIGHTNING
from mntp.audio.files import write_audio

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LINES = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
]
COMMAND_LINES = [line for line in LINES if line.startswith(("mntp ", "lightning "))]
MODULES = {
    "mntp": "from experiments.main import main; main()",
    "lightning": "from experiments.config.lightning_cli import main; main()",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: 24 sounds with a captions table, and a checkout's configs."""
    torch = pytest.importorskip("torch")
    corpus, rows = EmbeddedCorpus(num_train=20, num_val=2, num_test=2), ["file,caption,split"]
    (tmp_path / "sounds").mkdir()
    for split, count in corpus.splits().items():
        for index in range(count):
            scene = corpus.scene(split, index)
            name = f"{split}{index}.wav"
            write_audio(tmp_path / "sounds" / name, torch.from_numpy(scene.waveform))
            rows.append(f'{name},"{scene.caption}",{split}')
    (tmp_path / "captions.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    return tmp_path


def run(line: str, cwd: Path) -> str:
    program, *words = shlex.split(line)
    code = f"import sys; sys.argv = {[program, *words]!r}; {MODULES[program]}"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_a_users_own_folder_from_prepare_to_sound(folder: Path) -> None:
    lines = (line for line in COMMAND_LINES if "data/mine" in line or "runs/mine" in line)
    prepare, fit, generate, many, export, *_ = lines
    assert "24 of 24 sounds" in run(prepare, folder)
    run(f"{fit} --trainer.max_steps 3 --trainer.val_check_interval 3 --trainer.enable_progress_bar false", folder)
    assert len(list((folder / "runs" / "mine").rglob("samples/*.wav"))) == 2
    first = Path(run(generate, folder).strip())
    content = (folder / first).read_bytes()
    assert Path(run(generate, folder).strip()) == first
    assert (folder / first).read_bytes() == content  # same seed, same file

    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run([sys.executable, "-c", snippet], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    saved = {file.name: file.read_bytes() for file in (folder / "exported").iterdir()}
    assert saved.keys() == {"config.json", "model.safetensors"}
    run(export, folder)
    assert {file.name: file.read_bytes() for file in (folder / "exported").iterdir()} == saved
    (folder / "prompts.txt").write_text("rain on a roof\n\na dog barks twice\n")
    assert len(run(f"{many} --out many", folder).split()) == 2


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_and_options_exist(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "lightning":
        assert words[0] in LIGHTNING
        return
    name = next(" ".join(words[:length]) for length in (2, 1) if " ".join(words[:length]) in COMMANDS)
    module, function, _ = COMMANDS[name]
    known = set()
    for key, parameter in inspect.signature(getattr(import_module(module), function)).parameters.items():
        several = is_dataclass(parameter.annotation)  # its fields are options
        known |= {field.name for field in fields(parameter.annotation)} if several else {key}
    known |= {"config"} if name == "prepare" else set()  # of commands that take parts
    assert {word[2:].replace("-", "_") for word in words if word.startswith("--")} <= known


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    assert {line.split()[1] for line in LINES if line.startswith("make ")} <= targets


def test_no_placeholder_is_left() -> None:
    assert not re.search(r"@[A-Z0-9]+@", README)


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)

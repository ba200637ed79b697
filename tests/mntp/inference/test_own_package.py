"""Parts of a user's own package: a checkpoint that holds them opens where the user allows the package."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mntp import TextToAudio
from mntp.inference.checkpoint import load_system
from mntp.inference.model_folder import read_model_folder, write_model_folder
from mntp.registry import ALLOWED, allow_imports
from mntp.systems import AudioSystem, build_system, plain_arguments
from mntp.systems.registry import CLASS_KEY, INSTANTIATOR_KEY
from tests.models import plain_arguments_of, tiny_trained

PACKAGE = "mntp_own_parts"
SOURCE = '''
from pathlib import Path

import torch

from mntp.heads import MixtureHead
from mntp.masking import Corruption, Fixed
from mntp.systems import AudioNTP

Path(__file__).with_name("imported").touch()


class OwnHead(MixtureHead):
    """A mixture under another name."""


class OwnRatio(Fixed):
    """A fixed ratio under another name."""


class OwnCorruption(Corruption):
    """The other sign."""

    def corrupted(self, tokens, generator):
        return -tokens


class OwnSystem(AudioNTP):
    """AudioNTP under another name."""
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package that can be imported and is not."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "parts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(ALLOWED, raising=False)
    yield folder
    forget(folder)


def forget(folder: Path) -> None:
    """As in a new process."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    (folder / "imported").unlink(missing_ok=True)


def own_system() -> AudioSystem:
    importlib.import_module(f"{PACKAGE}.parts")
    arguments = plain_arguments_of("AudioNTP") | {
        "head": {"class_path": f"{PACKAGE}.parts.OwnHead", "init_args": {"width": 8}},
        "mask_ratio": {"class_path": f"{PACKAGE}.parts.OwnRatio", "init_args": {"value": 0.5}},
        "masking_mode": {"class_path": f"{PACKAGE}.parts.OwnCorruption"},
        "decoding": {"sampling": {"temperature": 0.5}, "guidance": {"scale": 2.0}},
    }
    system = build_system(f"{PACKAGE}.parts.OwnSystem", arguments)
    donor = tiny_trained("AudioNTP").preprocessing
    assert donor is not None
    system.attach_preprocessing(donor)
    return system.eval()


def test_a_checkpoint_opens_only_where_its_package_is_allowed(package: Path, tmp_path: Path) -> None:
    system = own_system()
    path = tmp_path / "c.ckpt"
    class_path, arguments = plain_arguments(system)
    checkpoint = {
        "state_dict": system.state_dict(),
        "hyper_parameters": {**arguments, CLASS_KEY: class_path, INSTANTIATOR_KEY: "x"},
    }
    system.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    (expected,) = TextToAudio(system, "cpu").generate(["rain"])
    write_model_folder(system, tmp_path / "exported")
    forget(package)
    for load in (lambda: load_system(path), lambda: read_model_folder(str(tmp_path / "exported"))):
        with pytest.raises(
            ValueError, match=f"'{PACKAGE}', which is not imported; a file alone can't decide .*--import"
        ):
            load()
    assert not (package / "imported").exists()  # opening it has run nothing of the package
    allow_imports([PACKAGE])
    for model in (TextToAudio.from_pretrained(path, "cpu"), TextToAudio.from_pretrained(tmp_path / "exported", "cpu")):
        assert type(model.system).__name__ == "OwnSystem" and type(model.system.head).__name__ == "OwnHead"
        torch.testing.assert_close(model.generate(["rain"])[0], expected)
    assert (package / "imported").exists()

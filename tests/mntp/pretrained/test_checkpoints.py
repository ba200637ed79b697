"""Checkpoints of others: numpy's values are let in under both of their names, code is not, misfits are named."""

import argparse
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mntp.pretrained.checkpoints import NUMPY_VALUES, load_strictly, read_checkpoint, state_dict_of

CONTENT: dict[str, Any] = {
    "model": {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)},
    "sampler": {"indexes_per_class": [np.arange(5), np.arange(3, dtype=np.int32)], "queue": [4, 1], "pointers": []},
    "lr": np.float64(1e-4),
    "scores": np.array([0.5, 0.25], dtype=np.float32),
    "done": np.bool_(True),
}


class Harmful:
    """Runs code when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("ran",)


def write(path: Path, content: Any, legacy: bool, old_numpy: bool = False) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    if not old_numpy:
        return
    if legacy:
        path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
        return
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data.replace(b"numpy._core", b"numpy.core"))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("old_numpy", [False, True], ids=["numpy 2", "numpy 1"])
def test_values_of_numpy_come_back_whoever_wrote_them(tmp_path: Path, legacy: bool, old_numpy: bool) -> None:
    path = tmp_path / "file.pth"
    write(path, CONTENT, legacy, old_numpy)
    assert (b"numpy.core" in path.read_bytes()) == old_numpy
    found = read_checkpoint(path, safe=NUMPY_VALUES, legacy=True)
    assert torch.equal(found["model"]["weight"], CONTENT["model"]["weight"])
    for ours, theirs in zip(
        found["sampler"]["indexes_per_class"], CONTENT["sampler"]["indexes_per_class"], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    np.testing.assert_array_equal(found["scores"], CONTENT["scores"], strict=True)
    assert found["lr"] == 1e-4 and found["done"]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "offender"),
    [
        (CONTENT, r"numpy\._core\.multiarray\.(_reconstruct|scalar)"),
        ({"model": {}, "options": argparse.Namespace()}, "argparse.Namespace"),
        ({"model": Harmful()}, "print"),
    ],
    ids=["numpy", "namespace", "code"],
)
def test_what_was_not_named_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], legacy: bool, content: Any, offender: str
) -> None:
    path = tmp_path / "file.pth"
    write(path, content, legacy)
    safe = () if content is CONTENT else NUMPY_VALUES
    with pytest.raises(ValueError, match=rf"file\.pth: refused: .*\(.*{offender}\)") as caught:
        read_checkpoint(path, safe=safe, legacy=True)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_what_is_let_in_is_let_in_for_one_file_only(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    write(path, CONTENT, legacy=False)
    read_checkpoint(path, safe=NUMPY_VALUES)
    with pytest.raises(ValueError, match="refused"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_cut_file_is_named(tmp_path: Path, legacy: bool, kept: float) -> None:
    path = tmp_path / "file.pth"
    write(path, {"model": {"weight": torch.ones(5000)}}, legacy)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"file\.pth: not a (whole checkpoint|PyTorch checkpoint)") as caught:
        read_checkpoint(path, legacy=True)
    assert "\n" not in str(caught.value)


def test_the_old_format_is_read_only_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    write(path, {"model": {}}, legacy=True)
    assert read_checkpoint(path, legacy=True) == {"model": {}}
    with pytest.raises(ValueError, match=r"not a whole checkpoint of PyTorch 1\.6 or later"):
        read_checkpoint(path)
    with pytest.raises(ValueError, match=r"none\.pth: fetch it"):
        read_checkpoint(tmp_path / "none.pth", absent="fetch it")


def test_a_state_dict_is_found_by_its_key() -> None:
    path = Path("file.pth")
    state = {"weight": torch.ones(2)}
    assert state_dict_of({"model": state, "epoch": 3}, "model", path) == state
    assert state_dict_of(state, None, path) == state
    with pytest.raises(ValueError, match=r"file\.pth: expected the key 'state_dict', got model, epoch"):
        state_dict_of({"model": state, "epoch": 3}, "state_dict", path)
    with pytest.raises(ValueError, match=r"file\.pth: 'model' is no mapping of names to tensors"):
        state_dict_of({"model": {"weight": 3}}, "model", path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, r"the file lacks weight"),
        ({"scale": torch.ones(1)}, r"the file has unexpected tensors: scale"),
        ({"weight": torch.ones(3, 2)}, r"another shape than the model for weight \(\[3, 2\], expected \[2, 3\]\)"),
        ({f"x{n}": torch.ones(1) for n in range(9)}, r"unexpected tensors: x0, x1, x2, \.\.\. \(9 in all\)"),
        ({"bias": None, "b": torch.ones(2)}, r"the file lacks bias; has unexpected tensors: b"),
    ],
    ids=["missing", "extra", "reshaped", "many", "renamed"],
)
def test_whatever_does_not_fit_is_named_and_nothing_is_copied(change: dict[str, Any], message: str) -> None:
    module = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    fitting = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    state = {name: tensor for name, tensor in (fitting | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=message) as caught:
        load_strictly(module, state, Path("file.pth"))
    assert str(caught.value).startswith("file.pth: ") and "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    load_strictly(module, fitting, Path("file.pth"))
    assert all(torch.equal(tensor, fitting[name]) for name, tensor in module.state_dict().items())

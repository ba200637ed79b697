"""Third-party PyTorch checkpoints: safe unpickling, strict loading."""

import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SafeGlobal = Callable[..., Any] | tuple[Callable[..., Any], str]

# numpy 2 renamed `numpy.core`: files hold the old name or the new one, depending on who wrote them.
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_RECONSTRUCT: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]  # typed as str | Any
_SCALAR: Callable[..., Any] = np.float64(0).__reduce__()[0]  # type: ignore[assignment]
NUMPY_VALUES: tuple[SafeGlobal, ...] = (
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
    *((_RECONSTRUCT, f"{module}._reconstruct") for module in _NUMPY_MODULES),
    *((_SCALAR, f"{module}.scalar") for module in _NUMPY_MODULES),
)
"""Globals that numpy's numbers and arrays are unpickled with: PANNs' and LAION's files hold some beside the weights."""

# How `torch.save` began a file before PyTorch 1.6: a pickle of its magic number.
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
# What torch's readers raise for damaged bytes.
_DAMAGE = (AssertionError, EOFError, LookupError, RuntimeError, TypeError, ValueError, struct.error)
_NUM_NAMES_SHOWN = 3


def read_checkpoint(
    path: Path,
    safe: Sequence[SafeGlobal] = (),
    legacy: bool = False,
    absent: str = "no such checkpoint; check the path",
) -> dict[str, Any]:
    """Read a checkpoint's mapping without running any code in it.

    Tensors are read from the disk when they are used, except in the format before PyTorch 1.6.

    Args:
        path: the file.
        safe: classes and functions that are allowed beside tensors and plain values, or pairs of one and its full
            name in the file.
        legacy: also read the format before PyTorch 1.6.
        absent: the end of the message for a missing file.

    Raises:
        ValueError: no such file, not a PyTorch checkpoint, no mapping, or one that holds other objects.
    """
    if not path.is_file():
        raise ValueError(f"{path}: {absent}")
    is_zip = zipfile.is_zipfile(path)
    if not is_zip and not (legacy and _is_legacy(path)):
        whole = "checkpoint of PyTorch" if legacy else "checkpoint of PyTorch 1.6 or later"
        raise ValueError(f"{path}: not a whole {whole}; download or save it anew")
    try:
        with torch.serialization.safe_globals(list(safe)):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused: it holds objects beside tensors and plain values ({_offender(error)}); save its state "
            "dict alone"
        ) from error
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a PyTorch checkpoint ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a checkpoint's mapping, got {type(content).__name__}")
    return content


def state_dict_of(checkpoint: Mapping[str, Any], key: str | None, path: Path) -> dict[str, Tensor]:
    """Take the state dict out of a checkpoint: the value at `key`, or the checkpoint itself.

    Args:
        checkpoint: of `read_checkpoint`.
        key: where the state dict lies; None where it is the whole file.
        path: the file, for the message.

    Raises:
        ValueError: there is no such key, or its value is no mapping of names to tensors.
    """
    if key is not None and key not in checkpoint:
        raise ValueError(f"{path}: expected the key {key!r}, got {_some(map(str, checkpoint))}; is it another file?")
    state = checkpoint if key is None else checkpoint[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: {key or 'the file'!r} is no mapping of names to tensors; is it another file?")
    return dict(state)


def check_layout(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare names and shapes of a state dict with those of a model.

    Raises:
        ValueError: a tensor is missing, left over or of another shape; the message names the file and the first few.
    """
    problems = {
        "lacks": expected.keys() - state.keys(),
        "has unexpected tensors:": state.keys() - expected.keys(),
        "has another shape than the model for": {
            f"{name} ({list(state[name].shape)}, expected {list(tensor.shape)})"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        },
    }
    found = [f"{what} {_some(sorted(names))}" for what, names in problems.items() if names]
    if found:
        raise ValueError(f"{path}: the file {'; '.join(found)}: is it the checkpoint of another model?")


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy a state dict into a module that has exactly its names and shapes.

    Raises:
        ValueError: as `check_layout`; the module stays as it was.
    """
    check_layout(state, module.state_dict(), path)
    module.load_state_dict(dict(state))


def _is_legacy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LEGACY_MAGIC)) == _LEGACY_MAGIC


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many there are."""
    every: Collection[str] = list(names)
    shown = ", ".join(list(every)[:_NUM_NAMES_SHOWN])
    return shown if len(every) <= _NUM_NAMES_SHOWN else f"{shown}, ... ({len(every)} in all)"


def _offender(error: pickle.UnpicklingError) -> str:
    """The name that torch refused, without its advice to trust the file."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else str(error).splitlines()[0][:200]

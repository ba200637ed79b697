"""A trained system as a folder of two files in the hub's layout: `config.json` and `model.safetensors`, no pickles.

`config.json` holds the arguments of the system (the section `model` of a run's config) and the specs of its tokenizer
and text encoder. `model.safetensors` holds the tensors of system and tokenizer, with the prefixes `system.` and
`tokenizer.`. Classes of a user's own package are named by their dotted path; `mntp.registry` says when such a name
may be followed.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mntp.io.files import atomic_folder, atomic_write
from mntp.pretrained.checkpoints import load_strictly
from mntp.pretrained.hub import checkpoint_folder
from mntp.systems import AudioSystem, build_system, plain_arguments
from mntp.systems.preprocessing import EARLIER_KEY, KEY

FORMAT = 2  # 1: other names of arguments (`mntp.systems.earlier_names`) and of the preprocessing; still read
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_SYSTEM, _TOKENIZER = "system.", "tokenizer."


def write_model_folder(system: AudioSystem, folder: Path) -> None:
    """Write a system with its preprocessing, whole or not at all. A folder of this kind is replaced.

    Only one process may write at a time.

    Raises:
        ValueError: the system was built in Python from objects, or has no preprocessing; or the folder holds other
            files.
        OSError: the disk is full or the folder can't be written.
    """
    class_path, arguments = plain_arguments(system)
    if system.preprocessing is None:
        raise ValueError("the system has no tokenizer: it was not trained on prepared data")
    if folder.exists() and (not folder.is_dir() or {file.name for file in folder.iterdir()} - {CONFIG, WEIGHTS}):
        raise ValueError(f"{folder}: holds other files than a model's; name a new folder, or an empty one")
    tokenizer = dict(system.preprocessing["tokenizer"])
    tensors = _prefixed(_SYSTEM, system.state_dict()) | _prefixed(_TOKENIZER, tokenizer.pop("state"))
    config = {
        "format": FORMAT,
        "mntp_version": _version(),
        "system": {"class_path": class_path, "init_args": arguments},
        KEY: {**system.preprocessing, "tokenizer": tokenizer},
    }
    with atomic_folder(folder) as made:
        with atomic_write(made / CONFIG) as file:
            json.dump(config, file, indent=2, allow_nan=False)
        with atomic_write(made / WEIGHTS, "wb") as file:
            file.write(save(tensors, metadata={"format": "pt"}))


def read_model_folder(path: str) -> AudioSystem:
    """Build the system of a folder, or of a name on the hub, with its preprocessing, in evaluation mode on the CPU.

    Raises:
        ValueError: there is no such model; a file is damaged, of another program or of a newer format; or the weights
            are those of another model. One line, with what to do.
    """
    folder = checkpoint_folder(path, "system")
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / WEIGHTS)
    try:
        system = build_system(config["system"]["class_path"], config["system"]["init_args"])
        state = {name.removeprefix(_TOKENIZER): value for name, value in tensors.items() if name.startswith(_TOKENIZER)}
        preprocessing = config[KEY] if EARLIER_KEY not in config else config[EARLIER_KEY]
        system.attach_preprocessing({**preprocessing, "tokenizer": {**preprocessing["tokenizer"], "state": state}})
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_ours(folder / CONFIG, f"no usable {error}") from error
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    rest = {name: value for name, value in tensors.items() if not name.startswith(_TOKENIZER)}
    # Names without the prefix stay as they are, and are reported as unexpected.
    load_strictly(system, {name.removeprefix(_SYSTEM): value for name, value in rest.items()}, folder / WEIGHTS)
    return system.eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _not_ours(path, f"not JSON: {error}") from error
    found = config.get("format") if isinstance(config, dict) else None
    if not isinstance(found, int) or not isinstance(config.get("system"), dict):
        raise _not_ours(path, "no format number, or no system")
    if found > FORMAT:
        raise ValueError(
            f"{path}: format {found}, written by mntp {config.get('mntp_version')}; this is mntp {_version()}, which "
            f"reads formats up to {FORMAT}: update it"
        )
    return config


def _not_ours(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path}: not a model of this suite ({reason}); expected what save_pretrained or mntp export wrote"
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); copy or export it anew") from error


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _version() -> str | None:
    """The installed suite's; None in a checkout that isn't installed."""
    try:
        return importlib.metadata.version("mntp")
    except importlib.metadata.PackageNotFoundError:
        return None

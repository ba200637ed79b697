"""Frozen pretrained models: strict loading, float32 inference, identity by a hash of the weights.

Such a model is too large to travel with every store and checkpoint. Its path and the hash of its content travel, and
the hash is compared when it is loaded again.
"""

import contextlib
import pickle
from collections.abc import Iterator
from typing import Any

from safetensors import SafetensorError

from mntp.pretrained.hub import checkpoint_folder

# What transformers and diffusers raise for files that are damaged or of another kind.
_LOADING_ERRORS = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, EOFError),
    *(ArithmeticError, pickle.UnpicklingError, SafetensorError),
)


def load_model(cls: Any, path: str, subfolder: str = "") -> Any:
    """Load a model of transformers or diffusers in float32, in evaluation mode, without gradients.

    Args:
        cls: its class, with `from_pretrained`.
        path: a local folder or a name on the hub (see `checkpoint_folder`).
        subfolder: the part of the checkpoint that holds it.

    Raises:
        ValueError: it can't be found, is damaged, is of another kind, or lacks weights.
    """
    folder = checkpoint_folder(path, "model", subfolder)
    with loading(f"{folder}: can't be loaded as {cls.__name__}", "get the checkpoint anew"):
        model, info = cls.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    # The libraries put random numbers in the place of missing weights. Integer tensors are no weights but constants,
    # which files of other versions don't hold.
    indices = {name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()}
    if absent := sorted(set(info["missing_keys"]) - indices):
        raise ValueError(
            f"{folder}: lacks {len(absent)} weights of {cls.__name__} ({', '.join(absent[:3])}, ...); expected a "
            "whole checkpoint of that model"
        )
    return model.float().eval().requires_grad_(False)


@contextlib.contextmanager
def loading(problem: str, remedy: str) -> Iterator[None]:
    """Load something of transformers or diffusers without their output; turn their errors into one line.

    Args:
        problem: the beginning of the message.
        remedy: its end.

    Raises:
        ValueError: the block can't load its files.
    """
    try:
        with _quiet():
            yield
    except _LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{problem} ({reason}); {remedy}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and log messages of the libraries: what matters is checked and reported here."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    verbosity = [(library, library.get_verbosity()) for library in (of_diffusers, of_transformers)]
    bars = of_transformers.is_progress_bar_enabled()
    for library, _ in verbosity:
        library.set_verbosity(library.CRITICAL)
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in verbosity:
            library.set_verbosity(level)
        if bars:
            of_transformers.enable_progress_bar()

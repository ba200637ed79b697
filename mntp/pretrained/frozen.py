"""Public models that are used as they are: loaded whole, run in float32, and told apart by what they hold.

Such a model is too large to travel with every store and checkpoint. What travels is its path and the hash of its
content; whoever loads it again compares.
"""

import contextlib
import hashlib
import json
import pickle
from collections.abc import Iterator
from typing import Any

from safetensors import SafetensorError

from mntp.pretrained.hub import checkpoint_folder

# What the libraries stumble with over files that are damaged or of another kind.
_DAMAGE = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, EOFError),
    *(ArithmeticError, pickle.UnpicklingError, SafetensorError),
)
# Vocabularies of models are rounded up to a multiple of at most this.
_VOCABULARY_STEP = 128
# Spaces, letters beyond ASCII and marks: tokenizers that differ in more than their vocabulary differ here.
_PROBE = "A dog's bark, 3 times;  Öl & 雨 🔔\n"


def load_model(cls: Any, path: str, subfolder: str = "") -> Any:
    """Load a model of transformers or diffusers in float32, in evaluation mode, without gradients.

    Args:
        cls: its class, with `from_pretrained`.
        path: a local folder or a name on the hub (see `checkpoint_folder`).
        subfolder: the part of the checkpoint that holds it.

    Raises:
        ValueError: it is not to be had, is damaged, is of another kind, or lacks weights.
    """
    folder = checkpoint_folder(path, "model", subfolder)
    try:
        with _quiet():
            model, info = cls.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder}: can't be loaded as {cls.__name__} ({reason}); get the checkpoint anew") from error
    # The libraries go on with random numbers in the place of what is missing. Indices are no weights: they are
    # constants, which files of other versions don't hold.
    indices = {name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()}
    if absent := sorted(set(info["missing_keys"]) - indices):
        raise ValueError(
            f"{folder}: lacks {len(absent)} weights of {cls.__name__} ({', '.join(absent[:3])}, ...); expected a "
            "whole checkpoint of that model"
        )
    return model.float().eval().requires_grad_(False)


def load_text_tokenizer(path: str, vocab_size: int) -> Any:
    """Load a text tokenizer of transformers.

    Args:
        path: a local folder or a name on the hub (see `checkpoint_folder`).
        vocab_size: of the model that it is for.

    Raises:
        ValueError: it is not to be had, is damaged, has another vocabulary than the model, or makes nothing of an
            empty text.
    """
    from transformers import AutoTokenizer

    folder = checkpoint_folder(path, "tokenizer")
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder}: can't be loaded as a text tokenizer ({reason}); get it anew") from error
    # Where files are missing, transformers 5 makes a tokenizer of a few special words without a warning.
    if not vocab_size - _VOCABULARY_STEP < len(tokenizer) <= vocab_size:
        raise ValueError(
            f"{folder}: its text tokenizer has {len(tokenizer)} words, its model {vocab_size}; expected as many, or up "
            f"to {_VOCABULARY_STEP - 1} less: a file of it is missing or of another model"
        )
    if not tokenizer("")["input_ids"]:
        raise ValueError(f"{folder}: its text tokenizer makes nothing of an empty text; expected an end mark")
    return tokenizer


def tokenizer_facts(tokenizer: Any) -> list[object]:
    """What a text tokenizer makes of text, for `hash_tensors`: a hash of its vocabulary, and a line's indices."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return [hashlib.sha256(vocabulary.encode()).hexdigest(), tokenizer(_PROBE)["input_ids"]]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and advice from the libraries; what counts is checked and said here."""
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

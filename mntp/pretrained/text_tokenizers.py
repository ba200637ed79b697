"""Text tokenizers of public models: strict loading, and facts that tell two of them apart."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mntp.pretrained.frozen import loading
from mntp.pretrained.hub import checkpoint_folder

# Vocabularies of models are rounded up to a multiple of at most this.
_VOCABULARY_STEP = 128
# Spaces, marks and letters beyond ASCII: tokenizers with one vocabulary but other rules differ on this line.
_PROBE = "A dog's bark, 3 times;  Öl & 雨 🔔\n"


def load_text_tokenizer(path: str | Path, vocab_size: int) -> Any:
    """Load a text tokenizer of transformers.

    Args:
        path: a local folder or a name on the hub (see `checkpoint_folder`).
        vocab_size: of the model that it belongs to.

    Raises:
        ValueError: it can't be found, is damaged, has another vocabulary than the model, or gives no token for an
            empty text.
    """
    from transformers import AutoTokenizer

    folder = checkpoint_folder(str(path), "tokenizer")
    with loading(f"{folder}: can't be loaded as a text tokenizer", "get it anew"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
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
    """Facts of a text tokenizer for a hash: the SHA-256 of its vocabulary, and the ids of a line of text."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return [hashlib.sha256(vocabulary.encode()).hexdigest(), tokenizer(_PROBE)["input_ids"]]

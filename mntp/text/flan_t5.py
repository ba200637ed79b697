"""The paper's words: the encoder states of FLAN-T5 (arXiv 2210.11416)."""

from typing import Any

from torch import Tensor

from mntp.batch import TextStream
from mntp.io.fingerprint import check_content, hash_tensors
from mntp.pretrained.frozen import load_model
from mntp.pretrained.precision import default_device, float32
from mntp.pretrained.text_tokenizers import load_text_tokenizer, tokenizer_facts
from mntp.text.base import TextEncoder
from mntp.text.tokenization import token_batch

_FACTS = ("feed_forward_proj", "layer_norm_epsilon", "relative_attention_max_distance")


class FlanT5(TextEncoder):
    """Stream `words`: the states of a T5 encoder, up to the end mark; the width is the checkpoint's.

    An empty caption is the end mark alone, a long one is cut, with the end mark at its end. Runs on the GPU where
    there is one, in float32.
    """

    def __init__(self, path: str = "google/flan-t5-large", slots: int = 77, weights: str | None = None) -> None:
        """Load encoder and tokenizer.

        Args:
            path: folder in the hub's layout, or name on the hub, of a T5 model (transformers' T5EncoderModel).
            slots: states that are kept of a caption.
            weights: hash that weights and vocabulary must have; None takes any.

        Raises:
            ValueError: `slots` is below 1; the model can't be found, is of another kind, or has another hash.
        """
        if slots < 1:
            raise ValueError(f"FlanT5 got slots={slots}; expected at least 1")
        from transformers import T5EncoderModel

        self.path = str(path)
        self.slots = slots
        model = load_model(T5EncoderModel, self.path)
        self._tokenizer = load_text_tokenizer(self.path, model.config.vocab_size)
        facts = {name: getattr(model.config, name) for name in _FACTS}
        found = hash_tensors(model.state_dict(), tokenizer=tokenizer_facts(self._tokenizer), **facts)
        self.weights = check_content(self.path, found, weights)
        self.streams = {"words": TextStream(model.config.d_model, slots)}
        self._model = model.to(default_device())

    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        """Embed captions; a list of float32 [length, dim] tensors on the CPU, 1 <= length <= slots."""
        batch, lengths = token_batch(self._tokenizer, captions, self.slots, self._model.device)
        with float32():
            states = self._model(**batch).last_hidden_state.cpu()
        return {"words": [each[:length].clone() for each, length in zip(states, lengths, strict=True)]}

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values, with the weights' hash filled in."""
        return {"path": self.path, **self.identity()}

    def identity(self) -> dict[str, Any]:
        """The same without the path: equal weights embed alike wherever they lie."""
        return {"slots": self.slots, "weights": self.weights}

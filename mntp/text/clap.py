"""The paper's sentence vector: the text embedding of CLAP (arXiv 2211.06687), by transformers."""

from pathlib import Path
from typing import Any

from torch import Tensor

from mntp.batch import TextStream
from mntp.io.fingerprint import check_content, hash_tensors
from mntp.pretrained.frozen import load_model
from mntp.pretrained.laion_clap import MAX_TEXT_TOKENS, TEXT_TOKENIZER
from mntp.pretrained.precision import default_device, float32
from mntp.pretrained.text_tokenizers import load_text_tokenizer, tokenizer_facts
from mntp.text.base import TextEncoder
from mntp.text.tokenization import token_batch

_FACTS = ("hidden_act", "layer_norm_eps", "num_attention_heads", "pad_token_id")


class ClapText(TextEncoder):
    """Stream `pooled`: CLAP's embedding of a caption, one vector of norm 1 (512 values in LAION's models).

    Longer captions are cut to 77 tokens, an empty one is its start and end mark. Runs on the GPU where there is one,
    in float32.
    """

    def __init__(
        self,
        path: str = "laion/clap-htsat-unfused",
        weights: str | None = None,
        tokenizer: str = TEXT_TOKENIZER,
    ) -> None:
        """Load text branch and tokenizer.

        Args:
            path: folder in the hub's layout, or name on the hub, of a CLAP model (transformers' ClapModel); or a
                checkpoint file of LAION's training, `.pt`.
            weights: hash that the text branch and the vocabulary must have; None takes any.
            tokenizer: folder or name on the hub of the text tokenizer; only LAION's file needs it.

        Raises:
            ValueError: the model can't be found, is of another kind, or has another hash.
        """
        self.path = str(path)
        self.tokenizer = str(tokenizer)
        model, self._tokenizer = self._load()
        config = model.config.text_config
        facts = {name: getattr(config, name) for name in _FACTS}
        facts |= {"projection": model.config.projection_hidden_act, "tokenizer": tokenizer_facts(self._tokenizer)}
        branch = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("text_")}
        self.weights = check_content(self.path, hash_tensors(branch, **facts), weights)
        self.streams = {"pooled": TextStream(model.config.projection_dim, 1)}
        del model.audio_model, model.audio_projection
        self._model = model.to(default_device())

    def _load(self) -> tuple[Any, Any]:
        """The model and its text tokenizer."""
        if Path(self.path).suffix == ".pt":
            from mntp.pretrained.laion_clap import load_laion_clap

            model: Any = load_laion_clap(Path(self.path).expanduser())
            return model, load_text_tokenizer(self.tokenizer, model.config.text_config.vocab_size)
        from transformers import ClapModel

        model = load_model(ClapModel, self.path)
        return model, load_text_tokenizer(self.path, model.config.text_config.vocab_size)

    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        """Embed captions; a list of float32 [1, dim] tensors on the CPU."""
        batch, _ = token_batch(self._tokenizer, captions, MAX_TEXT_TOKENS, self._model.device)
        with float32():
            vectors = self._model.get_text_features(**batch).pooler_output.cpu()
        return {"pooled": [vector[None].clone() for vector in vectors]}

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values, with the weights' hash filled in."""
        return {"path": self.path, "tokenizer": self.tokenizer, **self.identity()}

    def identity(self) -> dict[str, Any]:
        """The hash alone: equal weights embed alike wherever they lie."""
        return {"weights": self.weights}

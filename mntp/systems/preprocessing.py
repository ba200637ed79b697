"""What tokens and prompts were made with, kept with the model and written into its checkpoints."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import lightning as L

KEY, EARLIER_KEY = "preprocessing", "front_end"  # in checkpoints and model folders


@runtime_checkable
class PreparedData(Protocol):
    """What a system asks of the DataModule that it runs with."""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Tokenizer, text encoder and clip length that the tokens were made with, as tensors and plain values."""
        ...


class KeepsPreprocessing(L.LightningModule):
    """The part of a system that knows what its tokens and prompts are made with.

    Attributes:
        preprocessing: tokenizer, text encoder and clip length, as tensors and plain values; None before the first run
            on prepared data.
    """

    token_dim: int
    num_tokens: int
    preprocessing: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Take the preprocessing of the data that the trainer runs on.

        Raises:
            ValueError: see `attach_preprocessing`.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, PreparedData):
            self.attach_preprocessing(datamodule.preprocessing)

    def attach_preprocessing(self, preprocessing: dict[str, Any]) -> None:
        """Keep what the tokens were made with, so that it travels with the checkpoint.

        Raises:
            ValueError: it doesn't fit the model, or another one is attached already.
        """
        tokenizer = preprocessing["tokenizer"]
        found = (preprocessing["token_dim"], preprocessing["num_tokens"])
        if found != (self.token_dim, self.num_tokens):
            raise ValueError(
                f"the data has {found[1]} tokens of {found[0]} values a clip, the model "
                f"expects {self.num_tokens} of {self.token_dim}: set model.init_args.num_tokens and token_dim, or "
                "prepare the data anew"
            )
        if self.preprocessing is not None:
            own = self.preprocessing["tokenizer"]
            if own["fingerprint"] != tokenizer["fingerprint"]:
                raise ValueError(
                    f"the model was trained on tokens of {own['class']} {own['fingerprint']} {own['settings']}, the "
                    f"data was made with {tokenizer['class']} {tokenizer['fingerprint']} {tokenizer['settings']}: use "
                    "the store that the model was trained on, or train anew"
                )
        self.preprocessing = preprocessing

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the preprocessing into the checkpoint."""
        checkpoint[KEY] = self.preprocessing

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the preprocessing from the checkpoint; refuse one of another tokenizer."""
        preprocessing = read_preprocessing(checkpoint)
        if preprocessing is not None:
            self.attach_preprocessing(preprocessing)


def read_preprocessing(stored: Mapping[str, Any]) -> dict[str, Any] | None:
    """The preprocessing in a checkpoint or a model folder's config, under its present or its earlier key."""
    found: dict[str, Any] | None = stored.get(KEY, stored.get(EARLIER_KEY))
    return found

"""CLAP by LAION's own package, `laion-clap`, if it is installed: an optional check of `ClapText`."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mntp.batch import TextStream
from mntp.io.fingerprint import check_content, hash_tensors
from mntp.pretrained.hub import checkpoint_folder
from mntp.pretrained.laion_clap import TEXT_TOKENIZER
from mntp.pretrained.precision import default_device, float32
from mntp.text.base import TextEncoder


class LaionClapText(TextEncoder):
    """Stream `pooled`, equal to that of `ClapText` for the same file, computed by the package `laion-clap`.

    The package pins numpy below 2 and needs torchvision, so that it can't be installed beside the suite. It unpickles
    any object in the file: give it only files that you trust.
    """

    def __init__(self, path: str, audio_model: str = "HTSAT-base", weights: str | None = None) -> None:
        """Load the model.

        Args:
            path: a checkpoint file of LAION's training, `.pt`.
            audio_model: the audio branch of the file; the package builds it too.
            weights: hash that the text branch must have; None takes any.

        Raises:
            ValueError: no such file, the package is not installed, its tokenizer is not in the hub's cache (the
                package would wait for minutes), or the weights have another hash.
        """
        self.path = str(path)
        self.audio_model = audio_model
        if not Path(self.path).is_file():
            raise ValueError(f"{path}: no such file; expected a checkpoint of LAION's training (.pt)")
        if importlib.util.find_spec("laion_clap") is None:
            raise ValueError(
                "LaionClapText needs the package laion-clap, which is not installed; use ClapText, which gives the "
                "same for the same file, or install laion-clap and torchvision in an environment with numpy below 2"
            )
        checkpoint_folder(TEXT_TOKENIZER, "tokenizer")
        module = importlib.import_module("laion_clap").CLAP_Module(enable_fusion=False, amodel=audio_model)
        module.load_ckpt(self.path, verbose=False)
        self._module = module.float().eval().requires_grad_(False).to(default_device())
        state = self._module.state_dict()
        branch = {name: tensor for name, tensor in state.items() if name.startswith("model.text_")}
        self.weights = check_content(self.path, hash_tensors(branch), weights)
        self.streams = {"pooled": TextStream(512, 1)}

    def encode(self, captions: list[str]) -> dict[str, list[Tensor]]:
        """Embed captions; a list of float32 [1, 512] tensors on the CPU."""
        # The package squeezes a batch of one; the empty caption at the end prevents that.
        with float32():
            vectors: Tensor = self._module.get_text_embedding([*captions, ""], use_tensor=True)[: len(captions)]
        return {"pooled": [vector[None].to("cpu", torch.float32, copy=True) for vector in vectors]}

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values, with the weights' hash filled in."""
        return {"path": self.path, "audio_model": self.audio_model, **self.identity()}

    def identity(self) -> dict[str, Any]:
        """The hash alone: equal weights embed alike wherever they lie."""
        return {"weights": self.weights}

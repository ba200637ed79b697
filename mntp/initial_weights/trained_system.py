"""Starting from a run of this suite (Table 3, row B: AudioNTP from the trained AudioMAR)."""

import lightning as L

from mntp.backbones import TransformerBackbone
from mntp.conditioning.prompt import PromptEncoder
from mntp.initial_weights.base import InitialWeights, Selection, Transfer


class TrainedSystem(InitialWeights):
    """A trained system of any class: every tensor of the same name, the head included.

    Same names have the same meaning: content positions, prompt and head are shared by all systems. What only one of
    the two has (BOS, mask token, target positions) stays behind or starts anew. The front end of the tokens comes
    along, so that training on tokens of another tokenizer is refused as it is on a resume.

    Args:
        path: a checkpoint; its `state_dict` holds the averaged weights where the run kept an average.
    """

    def select(self, system: L.LightningModule) -> Selection:
        """Choose by name; equal names mean the same only with equal depth, attention heads, prompt and kind of head."""
        checkpoint = self.checkpoint()
        try:
            weights, settings = checkpoint["state_dict"], checkpoint["hyper_parameters"]
            name, backbone = settings["_class_path"].rpartition(".")[2], settings["backbone"]["init_args"]
            theirs = {
                "backbone.init_args.depth": backbone["depth"],
                "backbone.init_args.num_heads": backbone["num_heads"],
                "head.class_path": settings["head"]["class_path"].rpartition(".")[2],
                "streams": list(settings["streams"]),
            }
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: not a checkpoint of this suite ({error})") from error
        for key, mine in _settings(system).items():
            if theirs[key] != mine:
                raise ValueError(
                    f"{self.path}: its model.init_args.{key} is {theirs[key]}, the model's is {mine}: equal names "
                    "would mean other things; set it as in the file, or init: null"
                )
        own = system.state_dict()
        taken = {key: tensor for key, tensor in weights.items() if key in own}
        left = {key: f"{type(system).__name__} has no such part" for key in weights if key not in own}
        return Selection(f"TrainedSystem {self.path} ({name})", taken, left)

    def apply(self, system: L.LightningModule) -> Transfer:
        """As every InitialWeights; the front end of the tokens comes along."""
        transfer = super().apply(system)
        system.on_load_checkpoint(self.checkpoint())
        return transfer


def _settings(system: L.LightningModule) -> dict[str, object]:
    """What has to be equal beside the tensors' shapes, by its key below `model.init_args`."""
    backbone, prompt = system.get_submodule("backbone"), system.get_submodule("prompt")
    assert isinstance(backbone, TransformerBackbone) and isinstance(prompt, PromptEncoder)
    return {
        "backbone.init_args.depth": len(backbone.encoder_blocks) + len(backbone.decoder_blocks),
        "backbone.init_args.num_heads": backbone.num_heads,
        "head.class_path": type(system.get_submodule("head")).__name__,
        "streams": list(prompt.streams),
    }

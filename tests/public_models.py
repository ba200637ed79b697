"""Tiny random models in the layouts of the public checkpoints, and one way to damage each."""

import json
from pathlib import Path
from typing import Any

import torch

# What the public models have, but for their widths and depths.
VAE = {
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 8,
    "block_out_channels": (4, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.7,
}
VOCODER = {
    "model_in_dim": 64,
    "sampling_rate": 16_000,
    "upsample_initial_channel": 32,
    "upsample_rates": [5, 4, 2, 2, 2],
    "upsample_kernel_sizes": [16, 16, 8, 4, 4],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "normalize_before": False,
}
CLAP_DIM, T5_DIM = 512, 1024


def write_audioldm(folder: Path, vae: dict[str, Any] | None = None, vocoder: dict[str, Any] | None = None) -> Path:
    """`vae` and `vocoder` as in cvssp/audioldm-*; arguments change single settings."""
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    sizes = {**VAE, **(vae or {})}
    depth = len(sizes["block_out_channels"])
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * depth, "up_block_types": ("UpDecoderBlock2D",) * depth}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = AutoencoderKL(**sizes, **blocks)
        autoencoder.quant_conv.bias.data[sizes["latent_channels"] :] -= 2  # else variances are about 1
        autoencoder.save_pretrained(folder / "vae")
        generator = SpeechT5HifiGan(SpeechT5HifiGanConfig(**{**VOCODER, **(vocoder or {})}))
        for module in generator.modules():  # the class initialises so small that nothing is heard
            if isinstance(module, (torch.nn.Conv1d, torch.nn.ConvTranspose1d)):
                torch.nn.init.normal_(module.weight, std=(module.weight[0].numel()) ** -0.5)
        generator.save_pretrained(folder / "vocoder")
    return folder


def write_t5(folder: Path, seed: int = 0, vocab_size: int | None = None) -> Path:
    """Encoder and tokenizer as in google/flan-t5-large: a word is one piece, other letters one each."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["▁", "▁a", "▁dog", "▁barks", "▁rain", "▁falls", *letters]
    tokenizer = T5TokenizerFast(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((w, -2.0) for w in words)])
    config = T5Config(
        vocab_size=vocab_size or len(tokenizer) + 28,
        d_model=T5_DIM,
        d_kv=4,
        d_ff=8,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        T5EncoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def roberta_tokenizer() -> Any:
    """As roberta-base, with bytes for words."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {word: number for number, word in enumerate([*special, *sorted(ByteLevel.alphabet())])}
    return RobertaTokenizerFast(vocab=vocabulary, merges=[])


def clap_model(seed: int = 0) -> Any:
    """A ClapModel of transformers."""
    from transformers import ClapConfig, ClapModel

    text = {
        "vocab_size": len(roberta_tokenizer()),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 90,
    }
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1] * 4, "num_attention_heads": [1] * 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=CLAP_DIM)).eval()
        for parameter in model.parameters():  # a fresh model embeds all texts alike
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def write_clap(folder: Path, seed: int = 0) -> Path:
    """Model and tokenizer as in laion/clap-htsat-unfused."""
    clap_model(seed).save_pretrained(folder)
    roberta_tokenizer().save_pretrained(folder)
    return folder


def change_config(folder: Path, **values: Any) -> None:
    """Set entries of `config.json`."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def weights_file(folder: Path) -> Path:
    """The one file of weights in a folder."""
    (path,) = folder.glob("*.safetensors")
    return path


def shake_weights(folder: Path, name: str) -> None:
    """Move one tensor a little."""
    from safetensors.torch import load_file, save_file

    path = weights_file(folder)
    tensors = load_file(path)
    tensors[name] += 1e-3
    save_file(tensors, path, metadata={"format": "pt"})


def drop_weights(folder: Path, name: str) -> None:
    """Take one tensor out."""
    from safetensors.torch import load_file, save_file

    path = weights_file(folder)
    save_file({key: tensor for key, tensor in load_file(path).items() if key != name}, path, metadata={"format": "pt"})


def truncate_weights(folder: Path) -> None:
    """Keep the first half of the file."""
    path = weights_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

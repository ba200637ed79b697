"""Tiny models for tests, with a front end that is fitted and no weights from elsewhere."""

from typing import Any

import torch

from mntp.inference.text_to_audio import TextToAudio
from mntp.systems import AudioSystem, build_system
from mntp.text import HashedText, text_spec
from mntp.tokenizers import MelTokenizer, tokenizer_spec
from mntp.tokenizers.layout import mel_layout

NUM_SLICES, TOKEN_DIM = 4, 6
CLIP_SAMPLES = NUM_SLICES * mel_layout(TOKEN_DIM).samples_per_frame


def noises(num_clips: int, samples: int = CLIP_SAMPLES, seed: int = 0) -> torch.Tensor:
    """Clips [num_clips, samples] of noise whose loudness and colour change along the way."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(num_clips, samples, generator=generator)
    loudness = torch.rand(num_clips, samples // 1280, generator=generator).repeat_interleave(1280, dim=1) ** 2
    coloured = torch.nn.functional.conv1d(white[:, None], torch.hann_window(9)[None, None], padding=4)[:, 0]
    waveform = loudness * torch.where(torch.arange(samples) % 5120 < 2560, white, coloured)
    return 0.5 * waveform / waveform.abs().amax(dim=1, keepdim=True)


def mel_tokenizer(token_dim: int = TOKEN_DIM, num_griffin_lim_iterations: int = 2) -> MelTokenizer:
    """Fitted on noise."""
    tokenizer = MelTokenizer(token_dim, num_griffin_lim_iterations)
    tokenizer.fit([noises(8)])
    return tokenizer


def plain_arguments_of(name: str = "AudioMNTP") -> dict[str, Any]:
    """What a config says of a tiny system."""
    masked = name == "AudioMAR"
    arguments: dict[str, Any] = {
        "token_dim": TOKEN_DIM,
        "num_tokens": 4 * NUM_SLICES,
        "streams": {"pooled": {"dim": 5, "max_length": 1}, "words": {"dim": 5, "max_length": 3}},
        "backbone": {
            "class_path": f"mntp.backbones.{'MaskedEncoderDecoder' if masked else 'CausalTransformer'}",
            "init_args": {"dim": 16, "depth": 2, "num_heads": 2, "dropout": 0.0},
        },
        "head": {"class_path": "mntp.heads.DiffusionHead", "init_args": {"width": 8, "depth": 1}},
        "decoding": {"sampling": {"num_steps": 3, "x0_limit": 5.0}, "guidance": {"scale": 2.0}},
    }
    if name != "AudioNTP":
        arguments["mask_ratio"] = {"class_path": "mntp.masking.Fixed", "init_args": {"value": 0.5}}
    return arguments


def tiny_trained(name: str = "AudioMNTP", seed: int = 0) -> AudioSystem:
    """A system whose zero-initialised layers are shaken, its front end attached."""
    system = build_system(f"mntp.systems.{name}", plain_arguments_of(name))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in system.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    system.attach_preprocessing(
        {
            "tokenizer": tokenizer_spec(mel_tokenizer()),
            "text": text_spec(HashedText(dim=5, slots=3)),
            "samples": CLIP_SAMPLES,
            "num_tokens": 4 * NUM_SLICES,
            "token_dim": TOKEN_DIM,
        }
    )
    return system.eval()


def tiny_model(name: str = "AudioMNTP", seed: int = 0) -> TextToAudio:
    """The same, ready for captions."""
    return TextToAudio(tiny_trained(name, seed), "cpu")

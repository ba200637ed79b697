"""The paper's tokenizer: patches of the latents of AudioLDM's VAE, and its HiFi-GAN back to sound."""

import hashlib
import math
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from mntp.audio.log_mel import HOP, NUM_MELS, SAMPLE_RATE, LogMel
from mntp.io.fingerprint import check_content, hash_tensors
from mntp.pretrained.frozen import load_model
from mntp.pretrained.precision import default_device, float32
from mntp.seeding import make_generator
from mntp.tokenizers.base import Tokenizer
from mntp.tokenizers.layout import mel_layout

PATCH = 4
LATENT_CHANNELS = 8
DOWNSAMPLING = 4
# Settings of the two models that the shapes of their weights don't show.
_VAE_FACTS = ("scaling_factor", "act_fn", "norm_num_groups")
_VOCODER_FACTS = ("leaky_relu_slope", "normalize_before", "upsample_rates", "resblock_dilation_sizes")


class AudioLDM(Tokenizer):
    """4 x 4 patches of the VAE's latents, scaled to about unit variance: 256 tokens of 128 values for 10.24 s.

    Waveform -> log-mel [T, 64] of AudioLDM's training code -> latents [8, T / 4, 16] -> patches, tokens time outer and
    frequency inner, value order channel, time, frequency -> and exactly back, through HiFi-GAN. It expects waveforms
    as `mntp.audio.log_mel.normalise` leaves them, padded afterwards: padding is then log(1e-5) in every band.

    The weights don't travel with a store or a checkpoint; their path and hash do. It runs on the GPU if there is one,
    in float32 and clip by clip, so that a clip's tokens never depend on the rest of its batch.

    Source: https://github.com/haoheliu/AudioLDM (arXiv 2301.12503); patches as in MAR (arXiv 2406.11838).
    """

    def __init__(
        self,
        path: str = "cvssp/audioldm-s-full-v2",
        posterior: Literal["mean", "sample"] = "mean",
        seed: int = 0,
        weights: str | None = None,
    ) -> None:
        """Load the two models.

        Args:
            path: folder in the hub's layout, or name on the hub, with the subfolders `vae` (diffusers'
                AutoencoderKL) and `vocoder` (transformers' SpeechT5HifiGan).
            posterior: take the mean of the VAE's posterior, or a sample, whose noise is a function of the seed and
                of the clip's own waveform.
            seed: of the samples.
            weights: hash that the weights must have; None takes any.

        Raises:
            ValueError: the models can't be found, are of another kind than AudioLDM's, or have another hash.
        """
        super().__init__()
        if posterior not in ("mean", "sample"):
            raise ValueError(f"posterior: got {posterior!r}, expected 'mean' or 'sample'")
        from diffusers import AutoencoderKL
        from transformers import SpeechT5HifiGan

        self.layout = mel_layout(LATENT_CHANNELS * PATCH * PATCH)
        self.path = str(path)
        self.posterior = posterior
        self.seed = seed
        self.vae: Any = load_model(AutoencoderKL, self.path, "vae")
        self.vocoder: Any = load_model(SpeechT5HifiGan, self.path, "vocoder")
        _check_vae(self.path, self.vae.config)
        _check_vocoder(self.path, self.vocoder.config)
        self.scaling_factor = float(self.vae.config.scaling_factor)
        facts = {f"vae.{name}": self.vae.config[name] for name in _VAE_FACTS}
        facts |= {f"vocoder.{name}": getattr(self.vocoder.config, name) for name in _VOCODER_FACTS}
        self.weights = check_content(self.path, hash_tensors(self.state_dict(), **facts), weights)
        self.log_mel = LogMel()
        self.to(default_device())

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values, with the weights' hash filled in."""
        return {"path": self.path, **self.identity()}

    def identity(self) -> dict[str, Any]:
        """The settings without the path: equal weights give equal tokens wherever they lie."""
        return {"posterior": self.posterior, "seed": self.seed, "weights": self.weights}

    def state(self) -> dict[str, Tensor]:
        """Empty: the weights are loaded again from their path."""
        return {}

    def encode(self, waveform: Tensor) -> Tensor:
        """Encode waveform [B, samples] (float32, 16 kHz, samples a multiple of 2560) to tokens [B, N, 128].

        Raises:
            ValueError: the length does not fill whole frames.
        """
        self.num_tokens(waveform.shape[-1])
        with float32():
            latents = torch.cat([self._latents(clip[None]) for clip in waveform.float()])
        return patchify(latents * self.scaling_factor).to(waveform.device)

    def decode(self, tokens: Tensor) -> Tensor:
        """Decode tokens [B, N, 128] to waveform [B, samples], samples = N / 4 * 2560, exactly.

        Raises:
            ValueError: the tokens are not [B, multiple of 4, 128].
        """
        self.layout.check_tokens(tokens.shape)
        latents = unpatchify(tokens.float()) / self.scaling_factor
        with float32():
            return torch.cat([self._waveform(clip[None]) for clip in latents]).to(tokens.device)

    def _latents(self, waveform: Tensor) -> Tensor:
        """Latents [1, 8, T / 4, 16] of waveform [1, samples], not yet scaled."""
        log_mel = self.log_mel(waveform.to(self.log_mel.window.device))
        posterior = self.vae.encode(log_mel[:, None]).latent_dist
        mean: Tensor = posterior.mean
        if self.posterior == "mean":
            return mean
        content = hashlib.sha256(waveform.detach().cpu().contiguous().numpy().data).hexdigest()
        noise = torch.randn(mean.shape, generator=make_generator("AudioLDM", self.seed, content))
        return mean + posterior.std * noise.to(mean.device)

    def _waveform(self, latents: Tensor) -> Tensor:
        """Waveform [1, T * 160] of latents [1, 8, T / 4, 16]; the vocoder makes 32 samples more, cut at the end."""
        log_mel = self.vae.decode(latents.to(self.log_mel.window.device)).sample[:, 0]
        waveform: Tensor = self.vocoder(log_mel)
        return waveform[:, : log_mel.shape[1] * HOP]


def patchify(latents: Tensor) -> Tensor:
    """Latents [B, 8, t, 16] -> tokens [B, t / 4 * 4, 128]: time outer; values channel, time, frequency."""
    return rearrange(latents, "b c (t p) (f q) -> b (t f) (c p q)", p=PATCH, q=PATCH)


def unpatchify(tokens: Tensor) -> Tensor:
    """Tokens [B, N, 128] -> latents [B, 8, N, 16]; the exact inverse of `patchify`."""
    slices = NUM_MELS // DOWNSAMPLING // PATCH
    return rearrange(tokens, "b (t f) (c p q) -> b c (t p) (f q)", f=slices, p=PATCH, q=PATCH)


def _check_vae(path: str, config: Any) -> None:
    found = {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "downsampling": 2 ** (len(config.block_out_channels) - 1),
    }
    expected = {
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": LATENT_CHANNELS,
        "downsampling": DOWNSAMPLING,
    }
    _check_specification(f"{path}: its VAE", found, expected)


def _check_vocoder(path: str, config: Any) -> None:
    found = {
        "mel bands": config.model_in_dim,
        "sampling_rate": config.sampling_rate,
        "hop": math.prod(config.upsample_rates),
    }
    expected = {"mel bands": NUM_MELS, "sampling_rate": SAMPLE_RATE, "hop": HOP}
    _check_specification(f"{path}: its vocoder", found, expected)


def _check_specification(what: str, found: dict[str, int], expected: dict[str, int]) -> None:
    if found != expected:
        raise ValueError(f"{what} is {found}, expected {expected}; give a checkpoint of AudioLDM at 16 kHz")

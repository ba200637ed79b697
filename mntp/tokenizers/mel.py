"""The tokenizer that needs no weights: patches of the log-mel, a linear transform, Griffin-Lim back."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from mntp.audio.griffin_lim import griffin_lim
from mntp.audio.log_mel import LOG_FLOOR, LogMel
from mntp.tokenizers.base import Tokenizer
from mntp.tokenizers.layout import mel_layout

PATCH = 16
_NUM_VALUES = PATCH * PATCH
# A direction that hardly varies in the data (natural-log units) must not blow rounding errors up to unit variance.
_MIN_SCALE = 1e-3
# No mel band of a waveform within +-0.5 is louder: 0.5 * sum of the window * sum of a band (area 1) over the bins.
_LOG_CEILING = math.log(0.5 * 512 * 1024 / 16_000)


class MelTokenizer(Tokenizer):
    """PCA of 16 x 16 patches of the log-mel: 64 slices x 4 bands = 256 tokens for 10.24 s, as with the VAE.

    The transform is fitted on a training set (`fit`), or comes with a store or a checkpoint. It expects waveforms
    as `mntp.audio.log_mel.normalise` leaves them, padded afterwards.

    Attributes:
        mean: [256] of a patch, value order time, frequency.
        components: [token_dim, 256], orthonormal rows, by falling variance.
        scale: [token_dim], the standard deviation along each component.
        explained_variance: [], the share of the patches' variance that the tokens keep; 0 before `fit`.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor
    explained_variance: Tensor

    def __init__(self, token_dim: int = 32, num_griffin_lim_iterations: int = 32) -> None:
        """Prepare an unfitted tokenizer.

        Args:
            token_dim: values per token, 1 to 256.
            num_griffin_lim_iterations: spent by `decode` on the phases.

        Raises:
            ValueError: an argument is out of range.
        """
        super().__init__()
        if not 1 <= token_dim <= _NUM_VALUES:
            raise ValueError(f"token_dim is {token_dim}; a patch of the mel has 1 to {_NUM_VALUES} components")
        if num_griffin_lim_iterations < 0:
            raise ValueError(f"num_griffin_lim_iterations is {num_griffin_lim_iterations}; expected 0 or more")
        self.token_dim = token_dim
        self.num_griffin_lim_iterations = num_griffin_lim_iterations
        self.layout = mel_layout(token_dim)
        self.log_mel = LogMel()
        self.register_buffer("mean", torch.zeros(_NUM_VALUES))
        self.register_buffer("components", torch.zeros(token_dim, _NUM_VALUES))
        self.register_buffer("scale", torch.ones(token_dim))
        self.register_buffer("explained_variance", torch.zeros(()))

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain JSON values."""
        return {"token_dim": self.token_dim, "num_griffin_lim_iterations": self.num_griffin_lim_iterations}

    @torch.no_grad()
    def fit(self, waveforms: Iterable[Tensor]) -> None:
        """Fit the transform in one pass, by the eigenvectors of the patches' covariance (in float64).

        Args:
            waveforms: clips [samples], or batches of clips [B, samples], of any mix of lengths that `encode` takes.

        Raises:
            ValueError: there is no waveform, or one is not finite.
        """
        count = 0
        total = torch.zeros(_NUM_VALUES, dtype=torch.float64)
        products = torch.zeros(_NUM_VALUES, _NUM_VALUES, dtype=torch.float64)
        for waveform in waveforms:
            patches = self._patches(waveform.reshape(-1, waveform.shape[-1])).flatten(0, 1).cpu().double()
            if not torch.isfinite(patches).all():
                raise ValueError("a waveform to fit the mel tokenizer on is not finite; check the audio files")
            count += len(patches)
            total += patches.sum(dim=0)
            products += patches.T @ patches
        if count == 0:
            raise ValueError("there is no waveform to fit the mel tokenizer on; expected at least one training clip")
        mean = total / count
        self._set_transform(mean, products / count - torch.outer(mean, mean))

    def _set_transform(self, mean: Tensor, covariance: Tensor) -> None:
        variances, vectors = torch.linalg.eigh(covariance)
        kept = vectors.flip(1).T[: self.token_dim]
        # An eigenvector's sign is arbitrary: its largest entry is made positive.
        largest = kept.gather(1, kept.abs().argmax(dim=1, keepdim=True))
        variances = variances.flip(0).clamp(min=0)
        self.mean.copy_(mean)
        self.components.copy_(kept * largest.sign())
        self.scale.copy_(variances[: self.token_dim].sqrt().clamp(min=_MIN_SCALE))
        self.explained_variance.copy_(variances[: self.token_dim].sum() / variances.sum().clamp(min=1e-12))

    def encode(self, waveform: Tensor) -> Tensor:
        """Encode waveform [B, samples] (float32, 16 kHz, samples a multiple of 2560) to tokens [B, N, D].

        Raises:
            ValueError: the length does not fill whole frames, or the tokenizer is not fitted.
        """
        self._check_fitted()
        return (self._patches(waveform) - self.mean) @ self.components.T / self.scale

    def decode_mel(self, tokens: Tensor) -> Tensor:
        """Decode tokens [B, N, D] to a log-mel [B, N / 4 * 16, 64], within what a waveform can have.

        Raises:
            ValueError: the tokens are not [B, multiple of 4, D], or the tokenizer is not fitted.
        """
        self._check_fitted()
        self.layout.check_tokens(tokens.shape)
        patches = (tokens * self.scale) @ self.components + self.mean
        log_mel = rearrange(patches, "b (t f) (p q) -> b (t p) (f q)", f=self.layout.tokens_per_frame, p=PATCH, q=PATCH)
        return log_mel.clamp(min=math.log(LOG_FLOOR), max=_LOG_CEILING)

    def decode(self, tokens: Tensor) -> Tensor:
        """Decode tokens [B, N, D] to waveform [B, N / 4 * 2560], with `decode_mel` and Griffin-Lim."""
        return griffin_lim(self.decode_mel(tokens), self.num_griffin_lim_iterations)

    def decode_window(self, tokens: Tensor, first_frame: int) -> Tensor:
        """Decode a part of longer clips; Griffin-Lim starts from the phases that these frames have in the clips."""
        return griffin_lim(self.decode_mel(tokens), self.num_griffin_lim_iterations, first_frame=first_frame * PATCH)

    @torch.no_grad()
    def reconstruction_error(self, waveform: Tensor) -> dict[str, float]:
        """Measure what the way through the tokens costs on waveform [B, samples].

        Returns:
            Root-mean-square differences of the log-mel in dB, over all bands and frames: "linear_rmse_db" through
            the linear transform alone, "waveform_rmse_db" of the decoded waveform, analysed again.
        """
        log_mel = self.log_mel(waveform)
        decoded = self.decode_mel(self.encode(waveform))
        heard = self.log_mel(griffin_lim(decoded, self.num_griffin_lim_iterations))
        return {
            "linear_rmse_db": _rmse_db(decoded, log_mel),
            "waveform_rmse_db": _rmse_db(heard, log_mel),
        }

    def _patches(self, waveform: Tensor) -> Tensor:
        """Patches [B, N, 256] of waveform [B, samples]: tokens time outer, values time outer."""
        self.num_tokens(waveform.shape[-1])
        return rearrange(self.log_mel(waveform), "b (t p) (f q) -> b (t f) (p q)", p=PATCH, q=PATCH)

    def _check_fitted(self) -> None:
        if not self.explained_variance > 0:
            raise ValueError("the mel tokenizer is not fitted; call fit, or build it from a store's description")


def _rmse_db(estimate: Tensor, truth: Tensor) -> float:
    return 20 / math.log(10) * (estimate - truth).square().mean().sqrt().item()

"""A network that is replaced by the exact noise prediction of a one-dimensional mixture of Gaussians."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mntp.heads import DiffusionHead, DiffusionSampling
from mntp.heads.denoiser import Denoiser
from mntp.heads.schedules import DiffusionSchedule

TRAINING = DiffusionSchedule.cosine()


class Mixture(Denoiser):
    """eps(x_t) = -sigma_t d/dx log p_t(x_t) for tokens of one value; the variance output says beta-tilde.

    Args:
        weights: of the components.
        means: of the components.
        scales: their standard deviations.
        error: added to the noise prediction, as a function of x.
    """

    def __init__(self, weights: Sequence[float], means: Sequence[float], scales: Sequence[float], error: float = 0.0):
        super().__init__()
        self.weights, self.means, self.scales = (
            torch.tensor(values, dtype=torch.float64) for values in (weights, means, scales)
        )
        self.error = error

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        eps = self.noise(x, float(TRAINING.alpha_bar[int(t[0])])) + self.error * torch.cos(5 * x)
        return torch.cat([eps, torch.full_like(eps, -1.0)], dim=-1)

    def noise(self, x: Tensor, alpha_bar: float) -> Tensor:
        """Best prediction of the noise in x [M, 1]."""
        variance = alpha_bar * self.scales**2 + 1 - alpha_bar
        away = x - math.sqrt(alpha_bar) * self.means
        share = (self.weights.log() - variance.log() / 2 - away**2 / (2 * variance)).softmax(dim=-1)
        return math.sqrt(1 - alpha_bar) * (share * away / variance).sum(dim=-1, keepdim=True)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the tokens."""
        mean = float((self.weights * self.means).sum())
        return mean, math.sqrt(float((self.weights * (self.scales**2 + self.means**2)).sum()) - mean**2)

    def quantile(self, share: float) -> float:
        """The value below which `share` of the tokens lie, by bisection."""
        low, high = -20.0, 20.0
        for _ in range(80):
            middle = (low + high) / 2
            below = float((self.weights * torch.special.ndtr((middle - self.means) / self.scales)).sum())
            low, high = (middle, high) if below < share else (low, middle)
        return low


def draw(network: Mixture, sampling: DiffusionSampling, noise: Tensor) -> Tensor:
    """Tokens [M] from noise [M, draws] with `network` in the place of the head's own."""
    head = DiffusionHead(1, 1, width=8, depth=1)
    head.net = network  # type: ignore[assignment]  # plays the network
    return head.sample(torch.zeros(len(noise), 1), noise[:, :, None], sampling)[:, 0]


def normal_noise(samples: int, draws: int, seed: int = 0) -> Tensor:
    """Standard normal noise [samples, draws]; the first draw holds evenly spaced quantiles, in random order."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, draws, generator=generator, dtype=torch.float64)
    shares = (torch.randperm(samples, generator=generator) + 0.5) / samples
    noise[:, 0] = torch.special.ndtri(shares.double())
    return noise

"""Terms of the variational bound: Gaussian KL divergence and the discretised likelihood."""

import math

import torch
from torch import Tensor

BIN = 1 / 255  # half width of a bin of the discretised likelihood at t = 0, as in MAR
EDGE = 0.999  # beyond it the outer bins reach to infinity
MIN_PROBABILITY = 1e-12


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean1, .) || N(mean2, .)) of independent normals, elementwise, in nats."""
    return 0.5 * (
        log_variance2
        - log_variance1
        - 1
        + (log_variance1 - log_variance2).exp()
        + (mean1 - mean2).square() * (-log_variance2).exp()
    )


def approximate_normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the normal distribution function that MAR uses."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of the bin x +- 1/255 under N(mean, exp(log_scale)^2), elementwise, in nats.

    As in MAR, values beyond +-0.999 fall into the outer, unbounded bins.
    """
    inverse = (-log_scale).exp()
    upper = approximate_normal_cdf((x - mean + BIN) * inverse)
    lower = approximate_normal_cdf((x - mean - BIN) * inverse)
    log_inner = (upper - lower).clamp(min=MIN_PROBABILITY).log()
    log_low = upper.clamp(min=MIN_PROBABILITY).log()
    log_high = (1 - lower).clamp(min=MIN_PROBABILITY).log()
    return torch.where(x < -EDGE, log_low, torch.where(x > EDGE, log_high, log_inner))

"""Masking: the distribution of the mask ratio, which tokens are masked, and how they are corrupted."""

from mntp.masking.corruption import Hiding, hide_values
from mntp.masking.masks import in_random_order, kept_positions, num_hidden_in_mar, num_hidden_when_dropping, random_mask
from mntp.masking.ratios import RATIO_LAWS, Fixed, Mixture, Normal, RatioLaw, TruncatedNormal, Uniform

__all__ = [
    "RATIO_LAWS",
    "Fixed",
    "Hiding",
    "Mixture",
    "Normal",
    "RatioLaw",
    "TruncatedNormal",
    "Uniform",
    "hide_values",
    "in_random_order",
    "kept_positions",
    "num_hidden_in_mar",
    "num_hidden_when_dropping",
    "random_mask",
]

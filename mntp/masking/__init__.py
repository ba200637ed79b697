"""Masking: the distribution of the mask ratio, which tokens are masked, and how they are corrupted."""

from mntp.masking.corruption import CORRUPTIONS, Corruption, Gaussian, LinearNoise, MaskingMode, VPNoise, Zero
from mntp.masking.masks import in_random_order, kept_positions, num_hidden_in_mar, num_hidden_when_dropping, random_mask
from mntp.masking.ratios import MASK_RATIOS, ClippedNormal, Fixed, MaskRatio, Mixture, TruncatedNormal, Uniform

Normal = ClippedNormal  # its name in earlier configs and checkpoints

__all__ = [
    "CORRUPTIONS",
    "MASK_RATIOS",
    "ClippedNormal",
    "Corruption",
    "Fixed",
    "Gaussian",
    "LinearNoise",
    "MaskRatio",
    "MaskingMode",
    "Mixture",
    "TruncatedNormal",
    "Uniform",
    "VPNoise",
    "Zero",
    "in_random_order",
    "kept_positions",
    "num_hidden_in_mar",
    "num_hidden_when_dropping",
    "random_mask",
]

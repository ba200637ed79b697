"""Kernel distance (KID, arXiv 1801.01401): maximum mean discrepancy under a cubic kernel, averaged over subsets."""

import numpy as np
import torch
from torch import Tensor


def kernel_distance(
    generated: Tensor, reference: Tensor, num_subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and population standard deviation over subsets of the unbiased squared discrepancy, in float64.

    The kernel is (a . b / F + 1)^3. Subsets are drawn without replacement, generated before reference, by numpy's
    legacy generator: those of torch-fidelity and of the AudioLDM toolkit.

    Args:
        generated: [n, F].
        reference: [m, F].
        num_subsets: how many.
        subset_size: clips in a subset; that of the smaller set, if it holds fewer.
        seed: of the subsets.

    Raises:
        ValueError: a set has fewer than two rows, the widths differ, or a value isn't finite.
    """
    size = min(subset_size, len(generated), len(reference))
    if generated.ndim != 2 or generated.shape[1:] != reference.shape[1:] or size < 2:
        raise ValueError(
            "a kernel distance needs features [n, F] and [m, F] with n, m >= 2, "
            f"got {list(generated.shape)} and {list(reference.shape)}"
        )
    if not (generated.isfinite().all() and reference.isfinite().all()):
        raise ValueError("features hold NaN or infinite values: check the audio that they were computed from")
    generator = np.random.RandomState(seed)
    distances = []
    for _ in range(num_subsets):
        x = generated[torch.from_numpy(generator.choice(len(generated), size, replace=False))].double()
        y = reference[torch.from_numpy(generator.choice(len(reference), size, replace=False))].double()
        distances.append(_discrepancy(x, y))
    return float(np.mean(distances)), float(np.std(distances))


def _discrepancy(x: Tensor, y: Tensor) -> float:
    """Unbiased within the sets; the cross term is over all pairs, as in the public implementations."""
    size = len(x)
    within = sum(_off_diagonal_sum(_kernel(rows, rows)) for rows in (x, y)) / (size * (size - 1))
    return float(within - 2 * _kernel(x, y).mean())


def _off_diagonal_sum(kernel: Tensor) -> Tensor:
    return kernel.sum() - kernel.diagonal().sum()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3

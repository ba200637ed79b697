"""Kernel distances between sets of features: squared maximum mean discrepancies, unbiased at any number of features.

KID (arXiv 1801.01405) uses a cubic kernel, KAD (arXiv 2502.15602) a Gaussian one. Where a set holds fewer clips than
features, as 964 clips of Cnn14's 2,048, a Frechet distance is nearly all bias and these aren't.
"""

import numpy as np
import torch
from torch import Tensor

KAD_SCALE = 100.0


def kernel_distance(
    generated: Tensor, reference: Tensor, num_subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """KID: mean and population standard deviation over subsets of the squared discrepancy, in float64.

    The kernel is (a . b / F + 1)^3. Subsets are drawn without replacement, generated before reference, by numpy's
    legacy generator: those of torch-fidelity and of the AudioLDM toolkit. As there, the cross term is over all pairs,
    so that a generated clip that resembles its own reference lowers the value by a share of 1 / n.

    Args:
        generated: [n, F].
        reference: [m, F].
        num_subsets: how many.
        subset_size: clips in a subset; that of the smaller set, if it holds fewer.
        seed: of the subsets.

    Raises:
        ValueError: a set has fewer than two rows, the widths differ, or a value isn't finite.
    """
    _check(generated, reference)
    size = min(subset_size, len(generated), len(reference))
    if size == len(generated) == len(reference):
        num_subsets = 1  # every subset is the whole set
    generator = np.random.RandomState(seed)
    distances = []
    for _ in range(num_subsets):
        x = generated[torch.from_numpy(generator.choice(len(generated), size, replace=False))].double()
        y = reference[torch.from_numpy(generator.choice(len(reference), size, replace=False))].double()
        within = sum(_off_diagonal_sum(cubic_kernel(rows, rows)) for rows in (x, y)) / (size * (size - 1))
        distances.append(float(within - 2 * cubic_kernel(x, y).mean()))
    return float(np.mean(distances)), float(np.std(distances))


def paired_discrepancy(k_xx: Tensor, k_yy: Tensor, k_xy: Tensor) -> tuple[float, Tensor]:
    """Unbiased squared discrepancy of paired sets, and the same without each pair.

    The mean over i != j of k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i) (Gretton et al. 2012, lemma 6). Pairs
    (x_i, y_i) are left out, because a clip and its reference share a caption and aren't independent. It can be
    negative where the sets are alike.

    Args:
        k_xx: [n, n] kernel within the first set.
        k_yy: [n, n] within the second.
        k_xy: [n, n] across.

    Returns:
        The value, and [n] float64 without each pair.

    Raises:
        ValueError: there are fewer than three pairs.
    """
    n = len(k_xx)
    if n < 3:
        raise ValueError(f"a paired kernel distance needs at least 3 clips, got {n}: add clips")
    terms = (k_xx + k_yy - k_xy - k_xy.T).double()
    of_clip = terms.sum(1) - terms.diagonal()
    left_out = (of_clip.sum() - 2 * of_clip) / ((n - 1) * (n - 2))
    return (of_clip.sum() / (n * (n - 1))).item(), left_out


def kernel_audio_distance(generated: Tensor, reference: Tensor) -> tuple[float, Tensor]:
    """KAD of paired sets, and the same without each clip.

    As in its authors' code, the kernel is exp(-|a - b|^2 / (2 w^2)), with w the median distance within the reference
    set, and the discrepancy is multiplied by 100. Unlike there, a clip isn't compared with its own reference: see
    `paired_discrepancy`.

    Args:
        generated: [n, F].
        reference: [n, F]; row i is the partner of generated row i.

    Returns:
        The value, and [n] float64 without each clip.

    Raises:
        ValueError: the shapes differ, there are fewer than three rows, a value isn't finite, or more than half of the
            references are equal to each other.
    """
    _check(generated, reference)
    x, y = generated.double(), reference.double()
    if x.shape != y.shape:
        raise ValueError(f"KAD needs pairs of features, got {list(x.shape)} and {list(y.shape)}")
    width = torch.pdist(y).median()
    if width == 0:
        raise ValueError("KAD needs references that differ: at least half of the distances between them are 0")
    k_xx, k_yy, k_xy = (gaussian_kernel(*pair, width) for pair in ((x, x), (y, y), (x, y)))
    value, left_out = paired_discrepancy(k_xx, k_yy, k_xy)
    return KAD_SCALE * value, KAD_SCALE * left_out


def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x_i . y_j / F + 1)^3 of rows [n, F] and [m, F]: [n, m]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(x: Tensor, y: Tensor, width: Tensor) -> Tensor:
    """exp(-|x_i - y_j|^2 / (2 width^2)) of rows [n, F] and [m, F]: [n, m]."""
    return (-torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() / (2 * width.square())).exp()


def _off_diagonal_sum(kernel: Tensor) -> Tensor:
    return kernel.sum() - kernel.diagonal().sum()


def _check(generated: Tensor, reference: Tensor) -> None:
    if generated.ndim != 2 or generated.shape[1:] != reference.shape[1:] or min(len(generated), len(reference)) < 2:
        raise ValueError(
            "a kernel distance needs features [n, F] and [m, F] with n, m >= 2, "
            f"got {list(generated.shape)} and {list(reference.shape)}"
        )
    if not (generated.isfinite().all() and reference.isfinite().all()):
        raise ValueError("features hold NaN or infinite values: check the audio that they were computed from")

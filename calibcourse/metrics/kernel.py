"""Kernel calibration error: all pairs of samples, in O(N log N)."""

import torch
from torch import Tensor

from .._checks import check_real
from .._devices import where_float64_is
from .scores import scores_of_all


@where_float64_is
def kernel_calibration_error(logits: Tensor, target: Tensor, bandwidth: float = 0.4) -> Tensor:
    """Kernel calibration error: ECE's question asked without bins.

    KCE² = (1/N²) Σ_ij r_i r_j e^{-|c_i - c_j|/h}, r = 1{ŷ=y} - c: the MMCE of Kumar, Sarawagi and
    Jain 2018 over all pairs, also the biased (V-statistic) SKCE with Laplace kernel of Widmann et
    al. 2019, arXiv 1910.11385. Like ECE it is biased upwards by finite samples: its terms i = j
    alone give mean(r²)/N.

    Exact in O(N log N) time and O(N) memory. On sorted confidences the kernel is the covariance of
    a first-order autoregression, whose Cholesky factor is known: with a_i = e^{-(c_i - c_{i-1})/h}
    and T_i = r_i + a_i T_{i-1}, Σ_ij r_i r_j e^{-|c_i - c_j|/h} = Σ_i (1 - a_{i+1}²) T_i², where
    a_{N+1} = 0. Every term is >= 0 and every factor <= 1: nothing cancels, overflows or needs a cap
    on the bandwidth.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.
        bandwidth: h > 0, in units of confidence; 0.4 is Kumar et al.'s.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit;
            bandwidth <= 0.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.5, 0.0], [0.0, 0.1], [3.0, 0.0]])
        >>> kernel_calibration_error(logits, torch.tensor([0, 1, 1, 0]))
        tensor(0.1554, dtype=torch.float64)
    """
    bandwidth = check_real(bandwidth, "bandwidth", 0, strict=True)
    confidence, residual, _ = scores_of_all(logits, target)
    confidence, order = confidence.sort()
    distance = confidence.double().diff() / bandwidth
    field = _discounted_sums(residual[order], torch.exp(-distance))
    field *= field
    field[:-1] *= -torch.expm1(-2 * distance)  # 1 - a²
    return field.sum().sqrt() / len(field)


def _discounted_sums(values: Tensor, discount: Tensor) -> Tensor:
    """T with T_0 = values_0 and T_i = values_i + discount_{i-1} T_{i-1}, for N values.

    A scan by doubling: after step k every T_i covers the last 2^k values, so log2(N) vector
    operations replace N steps, each addition pairs sums of equal length, and no discount is ever
    divided by.
    """
    total = values.clone()
    reach = torch.cat([discount.new_zeros(1), discount])  # product of the discounts covered so far
    step = 1
    while step < len(total):
        total[step:] += reach[step:] * total[:-step]
        reach[step:] = reach[step:] * reach[:-step]
        step *= 2
    return total

"""Means over samples: accuracy, confidence, misconfidence, log-likelihood, Brier score."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .._blocks import at_label, blocks, rest_and_ties, sum_over_classes
from .._checks import check_logits, check_logits_and_target
from .._devices import where_float64_is
from .scores import scores


@where_float64_is
def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of samples whose predicted class, the lowest index on a tie, is the label.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> accuracy(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    return _mean(correct for _, _, correct in scores(logits, target))


@where_float64_is
def mean_confidence(logits: Tensor, target: Tensor | None = None) -> Tensor:
    """Mean of the largest probability, c̄; its distance from the accuracy is at most ECE.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: not used; accepted so that every metric is called alike.

    Returns:
        0-dim float64 tensor in [1/K, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits.

    Example:
        >>> mean_confidence(torch.tensor([[0.0, 0.0], [0.0, 100.0]]))
        tensor(0.7500, dtype=torch.float64)
    """
    return 1 - mean_misconfidence(logits)


@where_float64_is
def mean_misconfidence(logits: Tensor, target: Tensor | None = None) -> Tensor:
    """u = mean of Σ_{j≠ŷ} p_j, the probability that the model leaves to the other classes.

    It equals 1 - c̄ but keeps its relative precision where c̄ rounds to 1, and it is what curvature
    is sandwiched by (THEORY.md 4.2).

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: not used; accepted so that every metric is called alike.

    Returns:
        0-dim float64 tensor in [0, 1 - 1/K].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits.

    Example:
        >>> mean_misconfidence(torch.tensor([[0.0, 50.0]]))  # 1 - c would be 0 in float32
        tensor(1.9287e-22, dtype=torch.float64)
    """
    check_logits(logits)
    rests = (rest_and_ties(shifted)[0] for shifted, _ in blocks(logits))
    return _mean(rest / (1 + rest) for rest in rests)


@where_float64_is
def negative_log_likelihood(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of -log p_y, the cross-entropy, in nats.

    -log p_y = (z_ŷ - z_y) + log(1 + Σ_{j≠ŷ} e^{z_j - z_ŷ}): both terms are >= 0, so nothing cancels
    and a loss of 1e-20 is reported as such.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.

    Returns:
        0-dim float64 tensor, >= 0.

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> negative_log_likelihood(torch.zeros(5, 10), torch.arange(5))  # log 10
        tensor(2.3026, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    return _mean(
        at_label(shifted, target[rows]).neg() + torch.log1p(rest_and_ties(shifted)[0])
        for shifted, rows in blocks(logits)
    )


@where_float64_is
def brier_score(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance between the probabilities and the one-hot label (Brier 1950).

    Σ_k (p_k - 1{k=y})² = (Σ_{j≠y} p_j)² + Σ_{j≠y} p_j², summed over all K classes as Brier did: for
    K = 2 it is twice the binary score of some libraries.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.

    Returns:
        0-dim float64 tensor in [0, 2].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> brier_score(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.5000, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    return _mean(
        _squared_distance_to_label(shifted, target[rows]) for shifted, rows in blocks(logits)
    )


def _mean(blocks: Iterator[Tensor]) -> Tensor:
    """float64 mean over all samples of values that come in blocks."""
    total, count = torch.zeros((), dtype=torch.float64, device="cpu"), 0
    for block in blocks:
        total, count = total + block.sum(dtype=torch.float64), count + len(block)
    return total / count


def _squared_distance_to_label(shifted: Tensor, target: Tensor) -> Tensor:
    """Σ_k (p_k - 1{k=y})² of each sample of a block."""
    weights = shifted.exp()
    total = sum_over_classes(weights.clone())
    weights.scatter_(0, target[None], 0)
    squares = sum_over_classes(weights.square())
    return (sum_over_classes(weights).square() + squares) / total.square()

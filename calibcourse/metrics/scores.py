"""Per sample: the confidence, the residual 1{ŷ = y} - c, and whether the prediction is right."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .._blocks import at_label, blocks, rest_and_ties
from .._checks import check_logits_and_target


def confidence_and_correct(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence of each sample, and whether its prediction is right.

    c = max softmax(z) = 1 / Σ_j e^{z_j - z_max}; correct = 1{ŷ = y}, where ŷ is the lowest index
    that attains the maximum, on every device (THEORY.md 1).

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.

    Returns:
        confidence: (N,) in (0, 1], float64 for float64 logits and float32 for all others.
        correct: (N,) bool.

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [-1.0, 3.0]])
        >>> confidence, correct = confidence_and_correct(logits, torch.tensor([0, 1, 1]))
        >>> confidence
        tensor([0.8808, 0.5000, 0.9820])
        >>> correct
        tensor([ True, False,  True])
    """
    confidence, _, correct = scores_of_all(logits, target)
    return confidence, correct


def scores(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (confidence, residual, correct) of one block after another.

    The residual 1{ŷ=y} - c is no subtraction, and float64, so that c and 1 - c add up to 1 also for
    float32 logits.
    """
    for shifted, rows in blocks(logits):
        rest, n_tied = rest_and_ties(shifted)
        correct = _is_correct(shifted, target[rows], n_tied)
        confidence = 1 / (1 + rest)
        residual = torch.where(correct, rest, -1).mul_(confidence)
        yield confidence.to(shifted.dtype), residual, correct


def scores_of_all(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Validate, then (confidence, residual, correct) of all N samples."""
    check_logits_and_target(logits, target)
    confidence, residual, correct = zip(*scores(logits, target), strict=True)
    return torch.cat(confidence), torch.cat(residual), torch.cat(correct)


def _is_correct(shifted: Tensor, target: Tensor, n_tied: Tensor) -> Tensor:
    """Whether the label is the lowest index that attains the maximum.

    The comparison is by value: among ties, argmax gives another index on another device.
    """
    correct = at_label(shifted, target) == 0
    if n_tied.any():
        doubtful = (correct & (n_tied > 0)).nonzero()[:, 0]
        n_classes = len(shifted)
        index = torch.arange(n_classes, device=shifted.device)[:, None]
        lowest = torch.where(shifted[:, doubtful] == 0, index, n_classes).amin(0)
        correct[doubtful] = lowest == target[doubtful]
    return correct

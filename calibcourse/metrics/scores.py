"""Per sample: the confidence, the residual 1{ŷ = y} - c, and whether the prediction is right."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .._blocks import at_label, blocks, groups, rest_and_ties, rows_of_a_block
from .._checks import check_logits, check_logits_and_target
from .._devices import where_float64_is


@where_float64_is
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
    """Yield (confidence, residual, correct) of some thousand samples after others.

    The residual 1{ŷ=y} - c is no subtraction, and float64, so that c and 1 - c add up to 1 also for
    float32 logits.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    for rows in groups(logits):
        group, labels = logits[rows], target[rows]
        parts = [
            (at_label(shifted, labels[some]) == 0, *rest_and_ties(shifted))
            for shifted, some in blocks(group)
        ]
        correct, rest, n_tied = map(torch.cat, zip(*parts, strict=True))
        _settle_ties(correct, n_tied, group, labels)
        confidence = (rest + 1).reciprocal_()
        yield confidence.to(dtype), torch.where(correct, rest, -1).mul_(confidence), correct


def scores_of_all(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Validate, then (confidence, residual, correct) of all N samples."""
    check_logits_and_target(logits, target)
    confidence, residual, correct = zip(*scores(logits, target), strict=True)
    return torch.cat(confidence), torch.cat(residual), torch.cat(correct)


def check_confidence(confidence: Tensor) -> None:
    """Require floating confidences (N,) in [0, 1], N >= 1."""
    if not isinstance(confidence, Tensor) or not confidence.is_floating_point():
        kind = getattr(confidence, "dtype", type(confidence).__name__)
        raise TypeError(f"confidence must be a floating torch.Tensor, got {kind}")
    if confidence.ndim != 1 or len(confidence) == 0:
        raise ValueError(f"confidence must have shape (N,), N >= 1, got {tuple(confidence.shape)}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(
            "confidence must lie in [0, 1], got values outside it or NaN: give the largest "
            "probability of each sample, not a logit"
        )


def check_confidence_and_correct(confidence: Tensor, correct: Tensor) -> None:
    """Require confidences, and a bool for each of them on the same device."""
    check_confidence(confidence)
    if not isinstance(correct, Tensor) or correct.dtype != torch.bool:
        kind = getattr(correct, "dtype", type(correct).__name__)
        raise TypeError(f"correct must have dtype torch.bool, got {kind}: give predicted == target")
    if correct.shape != confidence.shape or correct.device != confidence.device:
        raise ValueError(
            f"correct must have the shape {tuple(confidence.shape)} and device "
            f"{confidence.device} of confidence, got {tuple(correct.shape)} on {correct.device}"
        )


def _settle_ties(correct: Tensor, n_tied: Tensor, logits: Tensor, target: Tensor) -> None:
    """Keep a label whose logit is the largest as correct only where its index is the lowest such.

    The comparison is by value: among ties, argmax gives another index on another device.
    """
    if n_tied.amax() > 0:
        doubtful = (correct & (n_tied > 0)).nonzero()[:, 0]
        for some in doubtful.split(rows_of_a_block(logits)):
            for shifted, _ in blocks(logits[some]):
                correct[some] = _lowest_top(shifted) == target[some]


def predicted_class(logits: Tensor) -> Tensor:
    """ŷ of each sample: the lowest index that attains the maximum, on every device.

    Args:
        logits: (N, K), K >= 2, any floating dtype.

    Returns:
        (N,) int64.

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits.

    Example:
        >>> predicted_class(torch.tensor([[0.0, 2.0, 2.0], [1.0, 0.0, 0.0]]))
        tensor([1, 0])
    """
    check_logits(logits)
    predicted = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    for shifted, rows in blocks(logits):
        top = shifted.argmax(0)
        tied = ((shifted == 0).sum(0) > 1).nonzero()[:, 0]
        top[tied] = _lowest_top(shifted[:, tied])
        predicted[rows] = top
    return predicted


def _lowest_top(shifted: Tensor) -> Tensor:
    n_classes = len(shifted)
    index = torch.arange(n_classes, device=shifted.device)[:, None]
    return torch.where(shifted == 0, index, n_classes).amin(0)
